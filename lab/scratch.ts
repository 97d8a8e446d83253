/**
 * Folders that are in use as long as a process lives: of a run, and of an entry of the cache while it is made. In each lies a lock that its process has.
 * What lies there with a lock that nobody has was left by a process that was killed.
 */
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { codeOf, removeIn } from './beneath.js'
import { undoAtExit } from './leftovers.js'
import { type Release, tryAcquire } from './lock.js'

export interface Scratch {
  /** The folder to work in. */
  path: string
  /** Removes it, as the end of the process does. */
  remove(): void
}

/** The lock of a folder that is there; null where another has it, or has removed the folder. */
async function lockOf(folder: string): Promise<Release | null> {
  try {
    return await tryAcquire(join(folder, 'lock'))
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null
    throw error
  }
}

/** Removes what processes that are no more left in the parent under names with this beginning. */
async function sweep(parent: string, prefix: string): Promise<void> {
  for (const item of readdirSync(parent, { withFileTypes: true })) {
    const { name } = item
    if (!name.startsWith(prefix) || !item.isDirectory()) continue
    const release = await lockOf(join(parent, name))
    if (!release) continue
    removeIn(parent, name)
    release()
  }
}

/** A new folder in the parent, which is this user's alone; what killed processes left there under such a name is removed first. */
export async function scratchFolder(parent: string, prefix: string): Promise<Scratch> {
  await sweep(parent, prefix)
  for (;;) {
    const folder = mkdtempSync(join(parent, prefix))
    const release = await lockOf(folder)
    // Between these two lines another process may have taken it for one without an owner.
    if (!release) continue
    const remove = undoAtExit(() => {
      removeIn(dirname(folder), basename(folder))
      release()
    })
    const path = join(folder, 'content')
    mkdirSync(path)
    return { path, remove }
  }
}
