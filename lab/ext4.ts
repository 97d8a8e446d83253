/**
 * Reads an ext4 file system that cannot be trusted: the guest may have written any byte of it. Every number is checked before it is used. A number
 * that fails its check raises DamagedDisk, which concerns only one file if the rest can still be read. The reader understands only what mke2fs makes
 * for the lab (disk.ts): blocks of 4096 bytes, extents, no journal. The names are those of the kernel's documentation, filesystems/ext4.
 */
import { fstatSync, readSync } from 'node:fs'
import { LabError } from './errors.js'

/** Thrown where the disk holds something impossible. */
export class DamagedDisk extends LabError {}

export const blockSize = 4096
/** How many blocks of a file are read at a time. */
const pieceBlocks = 256
const rootNumber = 2
/** How deep a tree of extents may be in the kernel. */
const mostDepth = 5
/**
 * The longest written extent, in blocks. A greater length marks an extent that was not written: its real length is the excess, and it reads as zeros.
 */
const mostWritten = 32768

/** The incompatible features that this reader knows: filetype, extents, 64bit, flex_bg, csum_seed. */
const understood = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000
const has64Bit = 0x80
const hasExtents = 0x80000

const kinds: Record<number, Kind> = {
  1: 'fifo',
  2: 'device',
  4: 'folder',
  6: 'device',
  8: 'file',
  10: 'symbolic link',
  12: 'socket'
}
export type Kind = 'file' | 'folder' | 'symbolic link' | 'device' | 'fifo' | 'socket'

export interface Inode {
  number: number
  kind: Kind
  executable: boolean
  size: number
  /** The root node of the file's tree of extents, which the inode itself holds. */
  tree: Buffer
}

export interface Entry {
  name: Buffer
  inode: number
}

/** A part of a file that is on the disk. Between such parts the file is zeros. */
export interface Piece {
  position: number
  data: Buffer
}

interface Extent {
  /** Where the extent begins in the file, in blocks. */
  logical: number
  /** Where the extent begins on the disk, in blocks. */
  physical: number
  blocks: number
  /** Whether its blocks were written; otherwise it reads as zeros. */
  written: boolean
}

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new DamagedDisk(what)
}

export class Ext4 {
  readonly #fd: number
  readonly #blocks: number
  readonly #groups: number
  readonly #inodes: number
  readonly #inodesPerGroup: number
  readonly #inodeSize: number
  readonly #descriptorSize: number

  /** @param fd the disk; the caller keeps it and closes it */
  constructor(fd: number) {
    this.#fd = fd
    const { size } = fstatSync(fd)
    check(size >= 2 * blockSize, 'there is no file system')
    const superblock = Buffer.alloc(1024)
    readSync(fd, superblock, 0, 1024, 1024)
    check(superblock.readUInt16LE(56) === 0xef53, 'there is no file system')
    const incompatible = superblock.readUInt32LE(96)
    const wide = (incompatible & has64Bit) !== 0
    check((incompatible & ~understood) === 0 && superblock.readUInt32LE(24) === 2, 'the file system is not the one that the lab made')
    this.#blocks = superblock.readUInt32LE(4) + (wide ? superblock.readUInt32LE(336) * 2 ** 32 : 0)
    check(this.#blocks <= size / blockSize, 'the file system is larger than the disk')
    const blocksPerGroup = superblock.readUInt32LE(32)
    this.#inodes = superblock.readUInt32LE(0)
    this.#inodesPerGroup = superblock.readUInt32LE(40)
    this.#inodeSize = superblock.readUInt16LE(88)
    this.#descriptorSize = wide ? superblock.readUInt16LE(254) : 32
    check(blocksPerGroup > 0 && this.#inodesPerGroup > 0, 'the groups of blocks are empty')
    check([128, 256, 512, 1024, 2048, 4096].includes(this.#inodeSize), 'inodes have an impossible size')
    check((wide ? [64, 128, 256, 512, 1024] : [32]).includes(this.#descriptorSize), 'descriptors of groups have an impossible size')
    this.#groups = Math.ceil(this.#blocks / blocksPerGroup)
  }

  /** Reads bytes of the disk, all of which must lie within the file system. */
  #read(position: number, length: number): Buffer {
    check(position >= 0 && position + length <= this.#blocks * blockSize, 'a block lies outside the disk')
    const data = Buffer.alloc(length)
    check(readSync(this.#fd, data, 0, length, position) === length, 'the disk ends too early')
    return data
  }

  inode(number: number): Inode {
    check(number > 0 && number <= this.#inodes, `there is no inode ${number}`)
    const group = Math.floor((number - 1) / this.#inodesPerGroup)
    check(group < this.#groups, `there is no inode ${number}`)
    const descriptor = this.#read(blockSize + group * this.#descriptorSize, this.#descriptorSize)
    const table = descriptor.readUInt32LE(8) + (this.#descriptorSize >= 64 ? descriptor.readUInt32LE(40) * 2 ** 32 : 0)
    const bytes = this.#read(table * blockSize + ((number - 1) % this.#inodesPerGroup) * this.#inodeSize, this.#inodeSize)
    const mode = bytes.readUInt16LE(0)
    const kind = kinds[mode >> 12]
    check(kind !== undefined, `inode ${number} is of no known kind`)
    const size = bytes.readUInt32LE(4) + bytes.readUInt32LE(108) * 2 ** 32
    const stored = kind === 'file' || kind === 'folder'
    check(!stored || size === 0 || (bytes.readUInt32LE(32) & hasExtents) !== 0, 'its content is not in extents')
    // This is a copy: there may be a hundred thousand inodes at once, and a view would keep everything that was read with each of them.
    return { number, kind, executable: (mode & 0o111) !== 0, size, tree: Buffer.from(bytes.subarray(40, 100)) }
  }

  get root(): Inode {
    return this.inode(rootNumber)
  }

  /**
   * Yields the extents below a node, in the order of the file. Each begins where the last one ended or later, so there are no more of them than the
   * file has blocks.
   */
  *#extents(node: Buffer, way: { next: number; end: number }, above?: number): Generator<Extent> {
    const [magic, entries, depth] = [node.readUInt16LE(0), node.readUInt16LE(2), node.readUInt16LE(6)]
    const isRoot = above === undefined
    // If nodes below the root could be empty, a tree of any size could lead nowhere.
    const fits = isRoot ? depth <= mostDepth : depth === above - 1 && entries > 0
    check(magic === 0xf30a && fits && 12 + entries * 12 <= node.length, 'its tree of extents is damaged')
    for (let at = 12; at < 12 + entries * 12 && way.next < way.end; at += 12) {
      if (depth > 0) {
        const child = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32
        yield* this.#extents(this.#read(child * blockSize, blockSize), way, depth)
        continue
      }
      const [logical, length] = [node.readUInt32LE(at), node.readUInt16LE(at + 4)]
      const written = length <= mostWritten
      const blocks = written ? length : length - mostWritten
      check(blocks > 0 && logical >= way.next, 'its extents overlap')
      way.next = logical + blocks
      yield { logical, physical: node.readUInt32LE(at + 8) + node.readUInt16LE(at + 6) * 2 ** 32, blocks, written }
    }
  }

  /** Yields the content of a file, without its holes. */
  *pieces(inode: Inode): Generator<Piece> {
    if (inode.size === 0) return
    const way = { next: 0, end: Math.ceil(inode.size / blockSize) }
    for (const { logical, physical, blocks, written } of this.#extents(inode.tree, way)) {
      for (let done = 0; written && done < blocks; done += pieceBlocks) {
        const position = (logical + done) * blockSize
        const length = Math.min(Math.min(pieceBlocks, blocks - done) * blockSize, inode.size - position)
        if (length <= 0) return
        yield { position, data: this.#read((physical + done) * blockSize, length) }
      }
    }
  }

  /** Yields the entries of a folder. The index of a large folder looks, to a reader that does not know it, like blocks without entries. */
  *entries(folder: Inode): Generator<Entry> {
    check(folder.size % blockSize === 0, 'the folder has an impossible size')
    for (const { data } of this.pieces(folder))
      for (let at = 0; at < data.length; at += blockSize) yield* entriesOf(data.subarray(at, at + blockSize))
  }
}

const [own, above] = [Buffer.from('.'), Buffer.from('..')]

function* entriesOf(block: Buffer): Generator<Entry> {
  for (let at = 0; at < blockSize; ) {
    check(at + 12 <= blockSize, 'the entries of the folder are damaged')
    const [inode, length, nameLength] = [block.readUInt32LE(at), block.readUInt16LE(at + 4), block[at + 6] as number]
    check(length >= 12 && length % 4 === 0 && at + length <= blockSize && nameLength + 8 <= length, 'the entries of the folder are damaged')
    // This is a copy, so that one name does not keep the whole block, and everything that was read with it.
    const name = inode === 0 ? own : Buffer.from(block.subarray(at + 8, at + 8 + nameLength))
    if (!name.equals(own) && !name.equals(above)) yield { name, inode }
    at += length
  }
}
