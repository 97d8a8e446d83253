/**
 * What the lab has downloaded and built, one folder an entry, named by what it was made from. An entry is made elsewhere and renamed into
 * place when it is whole, with a list of its files; one that differs from its list is made anew.
 */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { explained } from './errors.js'
import { undoAtExit } from './leftovers.js'
import { acquire } from './lock.js'

export function cacheFolder(): string {
  const base = process.env['NODE_KVM_LAB_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'node-kvm', 'lab')
  mkdirSync(base, { recursive: true })
  return base
}

const hash = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 20)

type List = Record<string, [size: number, changed: number]>
const listName = 'contents.json'

/** Size and time of every file: a file that was cut off or written to differs in one of them. */
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

/** Entries that nobody asked for in a month: made from a Node or a package that has changed since, mostly. */
function prune(): void {
  for (const name of readdirSync(cacheFolder())) {
    const path = join(cacheFolder(), name, listName)
    if (existsSync(path) && Date.now() - lstatSync(path).mtimeMs > unusedMs) rmSync(join(cacheFolder(), name), { recursive: true, force: true })
  }
}

const making = '.making-'

/** What makers of this entry left that were killed; the lock on it is held. */
function sweep(path: string): void {
  const half = basename(path) + making
  for (const name of readdirSync(cacheFolder()).filter((name) => name.startsWith(half)))
    rmSync(join(cacheFolder(), name), { recursive: true, force: true })
}

async function build(path: string, make: (folder: string) => Promise<void>): Promise<void> {
  sweep(path)
  const folder = mkdtempSync(path + making)
  const clean = undoAtExit(() => rmSync(folder, { recursive: true, force: true }))
  try {
    await make(folder)
    writeFileSync(join(folder, listName), JSON.stringify(list(folder)))
    rmSync(path, { recursive: true, force: true })
    renameSync(folder, path)
    prune()
  } catch (error) {
    throw explained(error, 'for the cache of the lab', 'NODE_KVM_LAB_CACHE')
  } finally {
    clean()
  }
}

/** The folder of an entry, made first where it is not there or not whole. */
export async function entry(kind: string, inputs: unknown, make: (folder: string) => Promise<void>): Promise<string> {
  const path = join(cacheFolder(), `${kind}-${hash(inputs)}`)
  if (isWhole(path)) {
    utimesSync(join(path, listName), new Date(), new Date())
    return path
  }
  const release = await acquire(`${path}.lock`)
  try {
    // Somebody else may have made it meanwhile.
    if (!isWhole(path)) await build(path, make)
  } finally {
    release()
  }
  return path
}

/** Removes an entry that turned out to be of no use. Whoever has its files open keeps them. */
export async function discard(path: string): Promise<void> {
  const release = await acquire(`${path}.lock`)
  try {
    rmSync(path, { recursive: true, force: true })
  } finally {
    release()
  }
}
