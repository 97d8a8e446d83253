import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LabError } from '../../lab/errors.js'
import { copyFromDisk, incomplete, omissions, prepareOut, readFromDisk } from '../../lab/results.js'
import { type Entry, HostileDisk, placeholder } from '../support/hostile-disk.js'

let scratch: string
let out: string
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'node-kvm-results-'))
  // Names such as ../../x would reach this folder from DIR/results.
  mkdirSync(join(scratch, 'victim'))
  writeFileSync(join(scratch, 'x'), 'untouched')
  writeFileSync(join(scratch, 'victim', 'file'), 'untouched')
  out = join(scratch, "we ird'", 'a "DIR"')
  mkdirSync(join(scratch, "we ird'"))
})
afterEach(() => scratch && rmSync(scratch, { recursive: true, force: true }))

/** Everything below a folder except DIR, with kind, mode, size and time. */
function inventory(folder = scratch): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    const { mode, size, mtimeMs } = lstatSync(path)
    if (path === out) return []
    const own = `${path} ${mode.toString(8)} ${lstatSync(path).isDirectory() ? '' : `${size} ${mtimeMs}`}`
    return [own, ...(lstatSync(path).isDirectory() ? inventory(path) : [])]
  })
}

/** Gathers the results, and expects that nothing outside DIR is made or changed. */
async function gather(disk: HostileDisk, limit?: number) {
  const before = inventory()
  const left = await copyFromDisk(disk.image, 'results', out, limit)
  expect(inventory()).toEqual(before)
  expect(readdirSync(out)).toEqual(['results'])
  return left
}
const result = (...names: string[]) => join(out, 'results', ...names)

describe('the results of a guest', () => {
  test('are its files and folders, with names of any bytes, holes, and whether they are programs', async () => {
    const odd = ['a b', "it's", '"quoted"', 'line\nfeed', '-rf', '\x1b[31mred', 'ü', 'n'.repeat(255), '...']
    const disk = await HostileDisk.make(scratch, (results) => {
      for (const name of odd) writeFileSync(join(results, name), name)
      placeholder(join(results, 'bytes'))
      mkdirSync(join(results, 'deep/er/still'), { recursive: true })
      writeFileSync(join(results, 'deep/er/still/file'), 'x'.repeat(3_000_000))
      writeFileSync(join(results, 'empty'), '')
      writeFileSync(join(results, 'program'), '#!/bin/sh\n')
      chmodSync(join(results, 'program'), 0o6777)
      writeFileSync(join(results, 'sparse'), 'start')
      truncateSync(join(results, 'sparse'), 5_000_001)
      for (let index = 0; index < 1000; index++) writeFileSync(join(results, 'deep', `one of a thousand ${index}`), String(index))
    })
    const notUtf8 = Buffer.from([0xff, 0xfe])
    disk.makeFolder('results/bytes', [{ name: notUtf8, inode: disk.inode('results/...') }])
    const left = await gather(disk)
    expect(omissions(left)).toBeNull()
    expect(incomplete(left, out, 0)).toBeNull()
    for (const name of odd) expect(readFileSync(result(name), 'utf8')).toBe(name)
    expect(readdirSync(result('bytes'), { encoding: 'buffer' })).toEqual([notUtf8])
    expect(readFileSync(result('deep/er/still/file'), 'utf8')).toBe('x'.repeat(3_000_000))
    expect(readdirSync(result('deep'))).toHaveLength(1001)
    expect(readFileSync(result('deep/one of a thousand 999'), 'utf8')).toBe('999')
    expect(statSync(result('empty')).size).toBe(0)
    expect(statSync(result('program')).mode & 0o7777).toBe(0o777 & ~process.umask())
    const sparse = readFileSync(result('sparse'))
    expect(sparse.equals(Buffer.concat([Buffer.from('start')], 5_000_001))).toBe(true)
    expect(statSync(result('sparse')).blocks).toBeLessThan(100)
  })

  test('do not come with links, devices, pipes and sockets, which are told; nor with setuid', async () => {
    const disk = await HostileDisk.make(scratch, (results) => {
      writeFileSync(join(results, 'good'), 'good')
      symlinkSync(join(scratch, 'x'), join(results, 'absolute'))
      symlinkSync('../../x', join(results, 'relative'))
      symlinkSync(join(scratch, 'victim'), join(results, 'folder\x1b[2J'))
      writeFileSync(join(results, 'setuid'), 'good')
    })
    disk.debugfs('cd results', 'mknod device b 8 0', 'mknod null c 1 3', 'mknod pipe p', 'set_inode_field setuid mode 0106755')
    disk.debugfs('write /dev/null results/socket', 'set_inode_field results/socket mode 0140755')
    const left = await gather(disk)
    expect(omissions(left)).toMatch(/^of the results only files and folders are copied, but not .*3 symbolic links/)
    for (const words of ['2 devices', '1 fifo', '"absolute"', '"folder\\u001b[2J"']) expect(omissions(left)).toContain(words)
    expect(readdirSync(result()).sort()).toEqual(['good', 'setuid'].concat(existsSync(result('socket')) ? ['socket'] : []))
    expect(statSync(result('setuid')).mode & 0o7000).toBe(0)
  })

  test('stay beneath DIR whatever the names, though a link has the name of a folder', async () => {
    const disk = await HostileDisk.make(scratch, (results) => {
      writeFileSync(join(results, 'good'), 'good')
      symlinkSync(join(scratch, 'victim'), join(results, 'link'))
      mkdirSync(join(results, 'folder'))
      writeFileSync(join(results, 'folder', 'file'), 'evil')
      placeholder(join(results, 'names'))
    })
    const [good, link, folder] = ['good', 'link', 'folder'].map((name) => disk.inode(`results/${name}`)) as [number, number, number]
    const bad = ['../../x', `${scratch}/x`, '/', 'a/b', 'nul\0byte', ''].map((name) => ({ name, inode: good }))
    const more = [
      { name: '..', inode: good },
      { name: '.', inode: good },
      { name: 'evil', inode: link },
      { name: 'evil', inode: folder },
      { name: 'twice', inode: good },
      { name: 'twice', inode: good },
      { name: 'nowhere', inode: 4_000_000 },
      { name: 'free', inode: 3000 }
    ]
    disk.makeFolder('results/names', [...bad, ...more])
    disk.debugfs(`set_inode_field results/folder/file mode 0100644`)
    const left = await gather(disk)
    expect(readFileSync(result('good'), 'utf8')).toBe('good')
    expect(readdirSync(result('names')).sort()).toEqual(['evil', 'twice'])
    const message = incomplete(left, out, 7)?.message ?? ''
    expect(left.failed.count).toBe(bad.length + 3 + 1)
    expect(message).toContain('the command ended with 7, and of its results 10 did not arrive')
    expect(message).toContain('"names/../../x": a file cannot have this name')
    expect(message).toContain('"names/twice": this machine refuses it (EEXIST)')
    expect(message).toContain('and 2 more')
    expect(omissions(left)).toContain('2 symbolic links')
  })

  test('end, though folders hold each other and files lie elsewhere', async () => {
    const disk = await HostileDisk.make(scratch, (results) => {
      writeFileSync(join(results, 'good'), 'good')
      for (const name of ['loop', 'cut']) placeholder(join(results, name))
      for (const name of ['outside', 'vast', 'overlong', 'stray', 'endless']) writeFileSync(join(results, name), 'x'.repeat(10_000))
      mkdirSync(join(results, Array(70).fill('d').join('/')), { recursive: true })
    })
    const [results, loop, good] = ['results', 'results/loop', 'results/good'].map((path) => disk.inode(path)) as [number, number, number]
    disk.makeFolder('results/loop', [
      { name: 'up', inode: results },
      { name: 'self', inode: loop },
      { name: 'first', inode: 2 },
      { name: 'good', inode: good }
    ])
    disk.makeFolder('results/cut', [
      { name: 'before', inode: good },
      { name: 'after', inode: good }
    ])
    // This entry is longer than its block.
    disk.patchContent('results/cut', Buffer.from([0, 0, 0, 0, 0xff, 0xff, 4, 0]))
    const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
    disk.patchInode('results/outside', 40 + 12 + 8, u32(0xfffffff0))
    disk.patchInode('results/vast', 108, u32(0x7fffffff))
    disk.patchInode('results/overlong', 40 + 12 + 4, Buffer.from([0, 0x80]))
    disk.patchInode('results/stray', 40, Buffer.alloc(12, 0xff))
    disk.patchInode('results/endless', 40 + 6, Buffer.from([5, 0]))
    const left = await gather(disk)
    expect(left.failed.count).toBeGreaterThanOrEqual(9)
    expect(readFileSync(result('good'), 'utf8')).toBe('good')
    expect(readFileSync(result('loop/good'), 'utf8')).toBe('good')
    for (const name of ['outside', 'vast', 'stray', 'endless']) expect(existsSync(result(name)), name).toBe(false)
    const reasons = incomplete(left, out, 0)?.message
    for (const words of [
      '"vast": with everything before it this is more than the limit',
      '"outside": a block lies outside the disk',
      '"stray": its tree of extents is damaged',
      '"loop/up": another name leads to the same folder'
    ])
      expect(reasons).toContain(words)
  })

  test('may be a hundred thousand, and have a limit', async () => {
    const names = Array.from({ length: 100_000 }, (_, index) => `entry ${index}`)
    const disk = await HostileDisk.make(scratch, (results) => {
      writeFileSync(join(results, 'good'), 'good')
      writeFileSync(join(results, 'empty'), '')
      placeholder(join(results, 'many'), 600)
    })
    const inode = disk.inode('results/empty')
    disk.makeFolder(
      'results/many',
      names.map((name): Entry => ({ name, inode }))
    )
    const all = await gather(disk)
    expect(incomplete(all, out, 0)).toBeNull()
    expect(readdirSync(result('many'))).toHaveLength(100_000)
    rmSync(out, { recursive: true })
    const some = await gather(disk, 2 ** 22)
    expect(readFileSync(result('good'), 'utf8')).toBe('good')
    expect(readdirSync(result('many')).length).toBeLessThan(1000)
    expect(incomplete(some, out, 0)?.message).toContain(
      '"many": with everything before it this is more than the limit of 4194304 bytes (--out-limit sets another limit)'
    )
  })

  test('may be a terabyte of holes, where that is asked for', async () => {
    const disk = await HostileDisk.make(scratch, (results) => {
      writeFileSync(join(results, 'a'), 'start')
      truncateSync(join(results, 'a'), 2 ** 40)
      writeFileSync(join(results, 'good'), 'good')
    })
    expect(incomplete(await gather(disk), out, 0)?.message).toContain(
      '"a": with everything before it this is more than the limit of 1073741824 bytes'
    )
    expect(readdirSync(result())).toEqual(['good'])
    rmSync(out, { recursive: true })
    expect(incomplete(await gather(disk, 2 ** 41), out, 0)).toBeNull()
    expect(statSync(result('a')).size).toBe(2 ** 40)
    expect(statSync(result('a')).blocks).toBeLessThan(100)
  })

  test('never stand where old ones are', async () => {
    const disk = await HostileDisk.make(scratch, (results) => writeFileSync(join(results, 'new'), 'new'))
    mkdirSync(result(), { recursive: true })
    await gather(disk)
    expect(readdirSync(result())).toEqual(['new'])
    await expect(copyFromDisk(disk.image, 'results', out)).rejects.toThrow(`${result()} is not an empty folder: remove it, or name another folder`)
    expect(() => prepareOut(out)).toThrow(LabError)
    rmSync(result(), { recursive: true })
    symlinkSync(join(scratch, 'victim'), result())
    await expect(copyFromDisk(disk.image, 'results', out)).rejects.toThrow('is not an empty folder')
    expect(readlinkSync(result())).toBe(join(scratch, 'victim'))
    // A run must not find out only at its end that a link is in the place of its results.
    mkdirSync(join(scratch, 'nothing'))
    for (const target of ['nothing', 'nowhere']) {
      rmSync(result())
      symlinkSync(join(scratch, target), result())
      expect(() => prepareOut(out), target).toThrow('is not an empty folder')
    }
    expect(readdirSync(out)).toEqual(['results'])
  })
})

test('the status is read from the same disk', async () => {
  const disk = await HostileDisk.make(scratch, () => {})
  const status = () => readFromDisk(disk.image, 'status')
  expect(await status()).toBe('0       ')
  disk.debugfs('set_inode_field status size 4294967296000')
  expect(await status()).toBeNull()
  disk.debugfs('set_inode_field status size 8', 'set_inode_field status mode 0120644')
  expect(await status()).toBeNull()
  // The magic number of the file system is overwritten.
  disk.write(1024 + 56, Buffer.alloc(2))
  await expect(status()).rejects.toThrow('the disk that the guest left cannot be read: there is no file system')
})

/** Random numbers from a seed, by mulberry32. */
function random(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

test('whatever bytes of a disk are changed, reading it ends with results or an error of the lab', async () => {
  const disk = await HostileDisk.make(scratch, (results) => {
    for (const name of ['one', 'two', 'three/four', 'three/five/six']) {
      mkdirSync(join(results, name), { recursive: true })
      writeFileSync(join(results, name, 'file'), 'x'.repeat(6000))
    }
    // There are so many holes that the tree of extents needs a separate block.
    const fd = openSync(join(results, 'holes'), 'w')
    for (let index = 0; index < 12; index++) writeSync(fd, 'x', 8192 * index)
    closeSync(fd)
    symlinkSync('one', join(results, 'link'))
  })
  const whole = disk.read()
  // The places that hold something other than bitmaps and the files' content: the superblock, the descriptors of groups, inodes, folders and extents.
  const places: [number[], number[], number[]] = [[], [], []]
  for (let at = 1024; at < whole.length; at += 16)
    if (whole.subarray(at, at + 16).some((byte) => byte !== 0 && byte !== 0x78 && byte !== 0xff)) places[Math.min(2, at >> 12)]?.push(at)
  const before = inventory().filter((line) => !line.includes('disk.img'))
  const next = random(20_201_015)
  const ended = { whole: 0, inPart: 0, error: 0 }
  for (let round = 0; round < 600; round++) {
    const changes = Array.from({ length: 1 + next(4) }, () => {
      const area = places[[0, 1, 2, 2, 2, 2][next(6)] as number] as number[]
      const at = (area[next(area.length)] as number) + next(16)
      return { at, data: Buffer.alloc([1, 2, 4][next(3)] as number, [0, 0xff, 0x7f, 1, next(256)][next(5)] as number) }
    })
    for (const { at, data } of changes) disk.write(at, data)
    try {
      await readFromDisk(disk.image, 'status')
      const { failed } = await copyFromDisk(disk.image, 'results', out, 2 ** 22)
      ended[failed.count === 0 ? 'whole' : 'inPart']++
    } catch (error) {
      expect(error, `round ${round}`).toBeInstanceOf(LabError)
      ended.error++
    }
    rmSync(out, { recursive: true, force: true })
    for (const { at, data } of changes) disk.write(at, whole.subarray(at, at + data.length))
  }
  expect(inventory().filter((line) => !line.includes('disk.img'))).toEqual(before)
  for (const [end, count] of Object.entries(ended)) expect(count, `${end} of ${JSON.stringify(ended)}`).toBeGreaterThan(20)
})
