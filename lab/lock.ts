/**
 * A lock between the processes of this machine: flock(2) on a file, in a folder that only its user can change.
 *
 * The kernel gives the lock to one open file at a time and takes it back when the last descriptor of that file is closed, by its owner or at the
 * owner's end, whatever that was. Nobody concludes from the existence of a file who owns the lock. Node has no flock(2), so the program flock of
 * util-linux is given our descriptor. The lock that it takes belongs to the open file, which stays here. Node opens everything with O_CLOEXEC, so no
 * other program inherits it.
 *
 * The owner removes the file before it releases the lock. A process that waited for a file which has been removed then holds a useless lock. It sees
 * that the path leads to another file or to none, and begins anew.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs'
import { codeOf } from './beneath.js'
import { execute } from './command.js'
import { LabError } from './errors.js'

/** Releases a lock. */
export type Release = () => void

interface Wait {
  /** Ends the waiting: the promise that acquire() returned rejects with the signal's reason. */
  signal?: AbortSignal
}

const heldByAnother = 1

async function flock(fd: number, words: readonly string[], signal?: AbortSignal): Promise<boolean> {
  const options = { from: 'util-linux', descriptor: fd, ...(signal ? { signal } : {}) }
  const { code, err } = await execute('flock', ['--exclusive', ...words, '3'], options)
  if (code !== 0 && code !== heldByAnother) throw new LabError(`flock cannot lock a file in the lab's folder: ${err.toString().trim()}`)
  return code === 0
}

/** Whether the path leads to this very file. */
function leadsTo(path: string, fd: number): boolean {
  const [there, own] = [lstatSync(path, { throwIfNoEntry: false }), fstatSync(fd)]
  return there !== undefined && there.ino === own.ino && there.dev === own.dev
}

function hold(path: string, fd: number): Release {
  let held = true
  return () => {
    if (!held) return
    held = false
    try {
      if (leadsTo(path, fd)) unlinkSync(path)
    } catch (error) {
      // If its folder is gone, the file needs no removing.
      if (codeOf(error) !== 'ENOENT') throw error
    } finally {
      closeSync(fd)
    }
  }
}

/** Takes the lock, or says why not: 'gone' if its file has been removed meanwhile, 'taken' if it does not wait and another process has the lock. */
async function attempt(path: string, words: readonly string[], signal?: AbortSignal): Promise<Release | 'gone' | 'taken'> {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  let release: Release | undefined
  try {
    if (!(await flock(fd, words, signal))) return 'taken'
    if (!leadsTo(path, fd)) return 'gone'
    release = hold(path, fd)
    return release
  } finally {
    if (!release) closeSync(fd)
  }
}

/** Waits for the lock. The function that it returns releases the lock, and so does the end of the process. */
export async function acquire(path: string, { signal }: Wait = {}): Promise<Release> {
  for (;;) {
    signal?.throwIfAborted()
    const answer = await attempt(path, [], signal)
    if (typeof answer === 'function') return answer
  }
}

/** Returns the lock's release, or null if another process has the lock. */
export async function tryAcquire(path: string): Promise<Release | null> {
  const answer = await attempt(path, ['--nonblock'])
  return typeof answer === 'function' ? answer : null
}
