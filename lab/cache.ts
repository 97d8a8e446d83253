/**
 * Keeps what the lab has downloaded and built. Each entry is a folder, whose name is a hash of its inputs. An entry is made elsewhere and renamed
 * into place when it is whole, with a list of its files; an entry that differs from its list is made anew.
 */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync, renameSync, utimesSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { codeOf, makeFolders, removeIn, whyNotOurs } from './beneath.js'
import { explained, LabError } from './errors.js'
import { acquire } from './lock.js'
import { type Scratch, scratchFolder } from './scratch.js'

/**
 * A folder of the lab, which is made if it is not there. The lab runs the files in it, and removes files by their names. So it refuses a folder that
 * another user made, or in whose place another user could put something.
 */
function ours(path: string): string {
  try {
    makeFolders(path, 0o700)
  } catch (error) {
    throw new LabError(`the lab cannot make its folder (${(error as Error).message}); set NODE_KVM_LAB_CACHE to another folder`)
  }
  const real = realpathSync(path)
  const reason = whyNotOurs(real)
  if (reason !== null)
    throw new LabError(
      `${reason}, so others could change the files that the lab keeps in ${real}. Set NODE_KVM_LAB_CACHE to another folder:` +
        ' you must own it, you or the administrator must own the folders above it, and others must not be able to write to any of them (chmod go-w).'
    )
  return real
}

/** A user without an entry in passwd(5) has a home only if HOME is set. */
function home(): string {
  try {
    return homedir()
  } catch {
    throw new LabError('this user has no home folder for the lab to keep its files in; set NODE_KVM_LAB_CACHE to another folder')
  }
}

/** An empty variable counts as unset (XDG Base Directory Specification). */
export const cacheFolder = () =>
  ours(process.env['NODE_KVM_LAB_CACHE'] || join(process.env['XDG_CACHE_HOME'] || join(home(), '.cache'), 'node-kvm', 'lab'))

/** Turns an error of the system while the lab worked into a failure that says what to do. Any other error is returned as it is. */
export function refused(error: unknown): unknown {
  const { syscall, path, message } = error as NodeJS.ErrnoException
  if (error instanceof LabError || syscall === undefined) return error
  const isOurs = path !== undefined && `${path}/`.startsWith(`${cacheFolder()}/`)
  return new LabError(
    isOurs
      ? `the lab cannot use its folder (${message}); set NODE_KVM_LAB_CACHE to another folder`
      : `the system refuses what the lab needs: ${message}`
  )
}

/** The name of the folder, within the cache's folder, that holds the folders of runs. */
export const runsName = 'runs'

/** A folder for a run. */
export const runScratch = (): Promise<Scratch> => scratchFolder(ours(join(cacheFolder(), runsName)), 'run-')

const hash = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 20)

type List = Record<string, [size: number, changed: number]>
const listName = 'contents.json'

/** The size and time of every file: a file that was cut off or written to differs in one of them. */
function list(folder: string): List {
  const files: List = {}
  const visit = (path: string) => {
    for (const { name } of readdirSync(join(folder, path), { withFileTypes: true })) {
      const inside = join(path, name)
      if (inside === listName) continue
      const stat = lstatSync(join(folder, inside))
      if (stat.isDirectory()) visit(inside)
      else files[inside] = [stat.size, Math.round(stat.mtimeMs)]
    }
  }
  visit('')
  return files
}

function isWhole(folder: string): boolean {
  try {
    const wanted: List = JSON.parse(readFileSync(join(folder, listName), 'utf8'))
    const found = list(folder)
    return (
      Object.keys(wanted).length === Object.keys(found).length &&
      Object.entries(wanted).every(([path, [size, changed]]) => found[path]?.[0] === size && found[path]?.[1] === changed)
    )
  } catch {
    return false
  }
}

const unusedMs = 30 * 86_400_000

/** Removes entries that nobody asked for in a month. Most were made from a Node or a package that has changed since. */
function prune(): void {
  for (const name of readdirSync(cacheFolder())) {
    const path = join(cacheFolder(), name, listName)
    if (existsSync(path) && Date.now() - lstatSync(path).mtimeMs > unusedMs) removeIn(cacheFolder(), name)
  }
}

/** A name with this in it belongs to an entry that is being made. */
export const making = '.making-'

function place(folder: string, path: string): void {
  removeIn(cacheFolder(), basename(path))
  try {
    renameSync(folder, path)
  } catch (error) {
    // If a user removes a lock's file by hand, another process may make the same entry. The first one that is whole serves both.
    if (codeOf(error) !== 'ENOTEMPTY' || !isWhole(path)) throw error
  }
}

async function build(path: string, make: (folder: string) => Promise<void>): Promise<void> {
  const scratch = await scratchFolder(cacheFolder(), basename(path) + making)
  try {
    await make(scratch.path)
    writeFileSync(join(scratch.path, listName), JSON.stringify(list(scratch.path)))
    place(scratch.path, path)
    prune()
  } catch (error) {
    throw explained(error, 'for the cache of the lab', 'NODE_KVM_LAB_CACHE')
  } finally {
    scratch.remove()
  }
}

/** Returns the folder of an entry, and makes the entry first if it is not there or not whole. */
export async function entry(kind: string, inputs: unknown, make: (folder: string) => Promise<void>): Promise<string> {
  const path = join(cacheFolder(), `${kind}-${hash(inputs)}`)
  if (isWhole(path)) {
    utimesSync(join(path, listName), new Date(), new Date())
    return path
  }
  const release = await acquire(`${path}.lock`)
  try {
    // Another process may have made it meanwhile.
    if (!isWhole(path)) await build(path, make)
  } finally {
    release()
  }
  return path
}

/** Removes an entry that turned out to be of no use. A process that has its files open keeps them. */
export async function discard(path: string): Promise<void> {
  const release = await acquire(`${path}.lock`)
  try {
    removeIn(cacheFolder(), basename(path))
  } finally {
    release()
  }
}
