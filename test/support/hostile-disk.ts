import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeDisk } from '../../lab/disk.js'

export interface Entry {
  name: string | Buffer
  inode: number
}

const blockSize = 4096
const mostUsed = 32 * 2 ** 20

/** The blocks of a folder as ext4 stores them, with any names: filesystems/ext4/directory in the kernel's documentation. */
export function folderBlocks(entries: readonly Entry[]): Buffer {
  const blocks: Buffer[][] = []
  let room = 0
  for (const { name, inode } of entries) {
    const text = Buffer.from(name)
    const record = Buffer.alloc(Math.max(12, Math.ceil((8 + text.length) / 4) * 4))
    record.writeUInt32LE(inode, 0)
    record.writeUInt16LE(record.length, 4)
    record.writeUInt8(text.length, 6)
    text.copy(record, 8)
    if (record.length > room) {
      blocks.push([])
      room = blockSize
    }
    blocks.at(-1)?.push(record)
    room -= record.length
  }
  return Buffer.concat(
    blocks.map((records) => {
      const last = records.pop() as Buffer
      const before = Buffer.concat(records)
      last.writeUInt16LE(blockSize - before.length, 4)
      return Buffer.concat([before, last], blockSize)
    })
  )
}

/** A disk as the lab makes it, filled from a folder, and then changed byte by byte as a guest can change it. */
export class HostileDisk {
  readonly image: string

  private constructor(image: string) {
    this.image = image
  }

  /** @param fill puts into the folder what the guest left in its folder of results */
  static async make(scratch: string, fill: (results: string) => void): Promise<HostileDisk> {
    const content = join(scratch, 'content')
    mkdirSync(join(content, 'results'), { recursive: true })
    writeFileSync(join(content, 'status'), '0       ')
    fill(join(content, 'results'))
    const image = join(scratch, 'disk.img')
    await makeDisk(image, content, { label: 'hostile' })
    return new HostileDisk(image)
  }

  /** Runs debugfs, which changes the disk, and returns its answer. */
  debugfs(...requests: string[]): string {
    const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }
    return execFileSync('debugfs', ['-w', '-f', '-', this.image], { input: `${requests.join('\n')}\n`, encoding: 'utf8', env, stdio: 'pipe' })
  }

  inode(path: string): number {
    return Number(/Inode: (\d+)/.exec(this.debugfs(`stat ${path}`))?.[1])
  }

  write(position: number, data: Uint8Array): void {
    const fd = openSync(this.image, 'r+')
    writeSync(fd, data, 0, data.length, position)
    closeSync(fd)
  }

  /** Overwrites bytes of an inode. */
  patchInode(path: string, offset: number, data: Uint8Array): void {
    const [, block, within] = /located at block (\d+), offset (0x[0-9a-f]+)/.exec(this.debugfs(`imap ${path}`)) ?? []
    this.write(Number(block) * blockSize + Number(within) + offset, data)
  }

  /** Overwrites the beginning of a file. */
  patchContent(path: string, data: Buffer): void {
    const indices = [...Array(Math.ceil(data.length / blockSize)).keys()]
    const answer = this.debugfs(...indices.map((index) => `bmap ${path} ${index}`))
    const blocks = answer.split('\n').filter((line) => /^\d+$/.test(line))
    for (const index of indices) this.write(Number(blocks[index]) * blockSize, data.subarray(index * blockSize, (index + 1) * blockSize))
  }

  /** Turns a file into a folder with these entries, and adapts its size. The file must have as many blocks as the entries need. */
  makeFolder(path: string, entries: readonly Entry[]): void {
    const blocks = folderBlocks(entries)
    this.patchContent(path, blocks)
    this.debugfs(`set_inode_field ${path} mode 040755`, `set_inode_field ${path} size ${blocks.length}`)
  }

  /** The part of the disk that has a file system, which is small. */
  read(): Buffer {
    const fd = openSync(this.image, 'r')
    const data = Buffer.alloc(Math.min(fstatSync(fd).size, mostUsed))
    readSync(fd, data, 0, data.length, 0)
    closeSync(fd)
    return data
  }
}

/** Makes a file of that many blocks, which is turned into something else later. */
export function placeholder(path: string, blocks = 1): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, Buffer.alloc(blocks * blockSize, 'placeholder'))
}
