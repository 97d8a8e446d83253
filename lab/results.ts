/**
 * Copies the guest's folder of results, which may hold anything (ext4.ts). It copies only files and folders, checks their names, and opens each
 * beneath the folder in which it lies, without following a link. The copy is a new folder, which becomes DIR/results when it is whole.
 */
import { accessSync, closeSync, constants, ftruncateSync, lstatSync, mkdtempSync, openSync, readdirSync, writeSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { codeOf, Folder, makeFolders } from './beneath.js'
import { LabError } from './errors.js'
import { blockSize, DamagedDisk, type Entry, Ext4, type Inode, type Kind } from './ext4.js'
import { undoAtExit } from './leftovers.js'

/** The folder in DIR to which results are copied. */
const place = 'results'
/** Each file and folder counts this much beside its size, so that one limit bounds their number, too. */
const entryBytes = 4096
const mostDepth = 64
const mostRootBytes = 2 ** 20
/** A message names at most so many. */
const mostNames = 8

export const defaultLimit = 2 ** 30

export interface Left {
  /** Entries that are neither file nor folder: how many there were of each kind, and the first names. */
  special: { kinds: Map<Kind, number>; names: string[] }
  /** Entries that could not be copied: how many, and the first of them with the reasons. */
  failed: { count: number; reasons: string[] }
}

/** A path for a message. It stands in quotes, so that its end is visible and a line feed in it breaks no line. */
const quoted = (path: readonly Buffer[]) => {
  const text = JSON.stringify(path.map(String).join('/'))
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

/** Errors of the host that concern a single name or file. */
const ofOneName = new Set(['EEXIST', 'ENAMETOOLONG', 'EILSEQ', 'EINVAL', 'EFBIG'])

class Gathering {
  readonly left: Left = { special: { kinds: new Map(), names: [] }, failed: { count: 0, reasons: [] } }
  readonly #disk: Ext4
  readonly #seen = new Set<number>()
  readonly #limit: number
  #room: number

  constructor(disk: Ext4, limit: number) {
    this.#disk = disk
    this.#limit = limit
    this.#room = limit
  }

  #fail(path: readonly Buffer[], reason: string): void {
    const { failed } = this.left
    failed.count++
    if (failed.reasons.length < mostNames) failed.reasons.push(`${quoted(path)}: ${reason}`)
  }

  #omit(path: readonly Buffer[], kind: Kind): void {
    const { kinds, names } = this.left.special
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
    if (names.length < mostNames) names.push(quoted(path))
  }

  /** Copies one entry. If it fails, the reason is noted, and the others are copied all the same. */
  async #each(path: readonly Buffer[], copy: () => Promise<void>): Promise<void> {
    try {
      await copy()
    } catch (error) {
      if (error instanceof DamagedDisk) this.#fail(path, error.message)
      else if (ofOneName.has(codeOf(error) ?? '')) this.#fail(path, `this machine refuses it (${codeOf(error)})`)
      else throw error
    }
  }

  #take(bytes: number): void {
    if (bytes > this.#room)
      throw new DamagedDisk(`with everything before it this is more than the limit of ${this.#limit} bytes (--out-limit sets another limit)`)
    this.#room -= bytes
  }

  /** Returns the entries of a folder; of a damaged folder, the entries before the damage. */
  async #entries(folder: Inode, path: readonly Buffer[]): Promise<Entry[]> {
    const entries: Entry[] = []
    await this.#each(path, async () => {
      this.#take(folder.size)
      for (const entry of this.#disk.entries(folder)) {
        this.#take(entryBytes)
        entries.push(entry)
      }
    })
    return entries
  }

  /** Copies files before folders, so that deep or endless folders do not use up the room of the files. */
  async folder(inode: Inode, to: Folder, path: readonly Buffer[]): Promise<void> {
    if (this.#seen.has(inode.number)) throw new DamagedDisk('another name leads to the same folder')
    this.#seen.add(inode.number)
    if (path.length > mostDepth) throw new DamagedDisk(`this lies deeper than ${mostDepth} folders`)
    const folders: { name: Buffer; inode: Inode }[] = []
    for (const { name, inode: number } of await this.#entries(inode, path)) {
      const own = [...path, name]
      await this.#each(own, async () => {
        if (name.length === 0 || name.includes(0) || name.includes('/')) throw new DamagedDisk('a file cannot have this name')
        const inode = this.#disk.inode(number)
        if (inode.kind === 'folder') folders.push({ name, inode })
        else if (inode.kind === 'file') await this.#file(inode, to, name)
        else this.#omit(own, inode.kind)
      })
    }
    for (const { name, inode } of folders) await this.#each([...path, name], () => this.#subfolder(inode, to, path, name))
  }

  async #subfolder(inode: Inode, to: Folder, path: readonly Buffer[], name: Buffer): Promise<void> {
    const below = to.makeFolder(name)
    try {
      await this.folder(inode, below, [...path, name])
    } finally {
      below.close()
    }
  }

  /** Copies a file. Of its mode, only whether it is a program is kept. Its holes stay holes. */
  async #file(inode: Inode, to: Folder, name: Buffer): Promise<void> {
    this.#take(inode.size)
    const fd = to.makeFile(name, inode.executable ? 0o777 : 0o666)
    try {
      if (inode.size > 0) ftruncateSync(fd, inode.size)
      for (const { position, data } of this.#disk.pieces(inode)) {
        for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done, position + done)
        await turn()
      }
    } catch (error) {
      to.remove(name)
      throw error
    } finally {
      closeSync(fd)
    }
    await turn()
  }
}

async function onDisk<Result>(image: string, use: (disk: Ext4) => Promise<Result> | Result): Promise<Result> {
  const fd = openSync(image, 'r')
  try {
    return await use(new Ext4(fd))
  } catch (error) {
    throw error instanceof DamagedDisk ? new DamagedDisk(`the disk that the guest left cannot be read: ${error.message}`) : error
  } finally {
    closeSync(fd)
  }
}

/** Looks up a name in the disk's first folder, which the lab has filled with a handful of names. */
function find(disk: Ext4, name: string): Inode | null {
  if (disk.root.size > mostRootBytes) throw new DamagedDisk('its first folder is too large')
  for (const entry of disk.entries(disk.root)) if (entry.name.equals(Buffer.from(name))) return disk.inode(entry.inode)
  return null
}

/** Returns the content of a small file in the disk's first folder, or null if there is no such file. */
export function readFromDisk(image: string, name: string): Promise<string | null> {
  return onDisk(image, (disk) => {
    const inode = find(disk, name)
    if (inode?.kind !== 'file' || inode.size > blockSize) return null
    return Buffer.concat([...disk.pieces(inode)].map(({ data }) => data)).toString('latin1')
  })
}

/** Makes the folder for the results. Old results in it must not be taken for those of this run, nor be removed unasked. */
export function prepareOut(out: string): void {
  const path = join(out, place)
  try {
    makeFolders(out)
    accessSync(out, constants.W_OK | constants.X_OK)
    const there = lstatSync(path, { throwIfNoEntry: false })
    // A link, even one that leads to nothing, cannot be replaced by a folder; so it is refused now and not after the run.
    if (!there || (there.isDirectory() && readdirSync(path).length === 0)) return
  } catch (error) {
    throw new LabError(`results cannot go into ${path}: ${(error as Error).message}`, 2)
  }
  throw new LabError(`${path} is not an empty folder: remove it, or name another folder, so that old results are not taken for new ones`, 2)
}

/** Copies the disk's folder of that name to `out`/results, which must be absent or empty. Nobody else can write to the copy until it is whole. */
export async function copyFromDisk(image: string, name: string, out: string, limit = defaultLimit): Promise<Left> {
  prepareOut(out)
  const parent = Folder.at(out)
  const half = basename(mkdtempSync(join(out, `.${place}-`)))
  const clean = undoAtExit(() => parent.remove(half))
  try {
    const to = parent.folder(half)
    try {
      const left = await onDisk(image, async (disk) => {
        const gathering = new Gathering(disk, limit)
        const from = find(disk, name)
        if (from?.kind !== 'folder') throw new DamagedDisk('the folder of the results is gone')
        await gathering.folder(from, to, [])
        return gathering.left
      })
      to.setMode(0o777 & ~process.umask())
      prepareOut(out)
      parent.rename(half, place)
      if (!to.isAt(parent, place)) throw new LabError(`somebody else has put another folder in the place of ${join(out, place)}`)
      return left
    } finally {
      to.close()
    }
  } finally {
    clean()
    parent.close()
  }
}

/** One line about the entries that are neither file nor folder; null if there were none. */
export function omissions({ special: { kinds, names } }: Left): string | null {
  if (kinds.size === 0) return null
  const counts = [...kinds].map(([kind, count]) => `${count} ${kind}${count > 1 ? 's' : ''}`)
  const total = [...kinds.values()].reduce((sum, count) => sum + count, 0)
  return `of the results only files and folders are copied, but not ${counts.join(', ')}: ${names.join(', ')}${total > names.length ? ', and more' : ''}`
}

/** The failure of a run whose results are incomplete; null if they are complete. */
export function incomplete({ failed: { count, reasons } }: Left, out: string, status: number): LabError | null {
  if (count === 0) return null
  const more = count > reasons.length ? [`  and ${count - reasons.length} more`] : []
  return new LabError(
    [
      `the command ended with ${status}, and of its results ${count} did not arrive; the others are in ${join(out, place)}:`,
      ...reasons.map((reason) => `  ${reason}`),
      ...more
    ].join('\n')
  )
}
