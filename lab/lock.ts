/**
 * A lock between the processes of this machine: flock(2) on a file, in a folder that is its user's alone.
 *
 * The kernel gives the lock to one open file at a time and takes it back when the last descriptor of that file is closed, by its owner or at the owner's
 * end, whatever that was. Nobody judges by whether a file is there who owns what. Node has no flock(2): the program flock of util-linux is given our
 * descriptor, and the lock that it takes is that of the open file, which stays here. Node opens everything with O_CLOEXEC: no other program inherits it.
 *
 * The owner removes the file before it lets go. Who waited for a file that has been removed then has the lock of nothing, sees that the path leads to
 * another file or to none, and begins anew.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs'
import { codeOf } from './beneath.js'
import { execute } from './command.js'
import { LabError } from './errors.js'

/** Lets go of a lock. */
export type Release = () => void

interface Wait {
  /** Ends the waiting; what acquire() returned rejects with its reason. */
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
      // Without its folder it needs no removing.
      if (codeOf(error) !== 'ENOENT') throw error
    } finally {
      closeSync(fd)
    }
  }
}

/** Takes the lock, or says why not: its file has been removed meanwhile or, without waiting, another process has it. */
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

/** Waits for the lock. What it returns lets go of the lock, and so does the end of the process. */
export async function acquire(path: string, { signal }: Wait = {}): Promise<Release> {
  for (;;) {
    signal?.throwIfAborted()
    const answer = await attempt(path, [], signal)
    if (typeof answer === 'function') return answer
  }
}

/** The lock, or null where another has it. */
export async function tryAcquire(path: string): Promise<Release | null> {
  const answer = await attempt(path, ['--nonblock'])
  return typeof answer === 'function' ? answer : null
}
