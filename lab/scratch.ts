/**
 * Folders that are in use as long as a process lives: the folder of a run, and that of a cache entry while it is made. Each contains a lock that its
 * process holds. If nobody holds the lock, a process that was killed left the folder.
 */
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { codeOf, removeIn } from './beneath.js'
import { undoAtExit } from './leftovers.js'
import { type Release, tryAcquire } from './lock.js'

export interface Scratch {
  /** The folder to work in. */
  path: string
  /** Removes the folder, as the end of the process does. */
  remove(): void
}

/** Takes the lock of an existing folder; null if another process has the lock, or has removed the folder. */
async function lockOf(folder: string): Promise<Release | null> {
  try {
    return await tryAcquire(join(folder, 'lock'))
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null
    throw error
  }
}

/** Removes the folders with names of this beginning that ended processes left in the parent. */
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

/**
 * Makes a new folder in the parent, a folder that only this user can change. It first removes the folders of such a name that killed processes left
 * there.
 */
export async function scratchFolder(parent: string, prefix: string): Promise<Scratch> {
  await sweep(parent, prefix)
  for (;;) {
    const folder = mkdtempSync(join(parent, prefix))
    const release = await lockOf(folder)
    // Between these two lines another process may have taken the folder for one without an owner.
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
