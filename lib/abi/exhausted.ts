/**
 * When a process runs out of descriptors, memory or mappings, the library first collects the objects that nobody holds any more. V8 knows little
 * of what its objects hold outside its heap, so many lost VMs may be uncollected when the descriptors run out.
 */
import { constants } from 'node:buffer'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { errnoName, exhaustion, KvmError } from './errors.js'

/** The functions of the add-on that this module needs. */
interface Reclaimer {
  /** Whether there is enough memory for a garbage collection. V8 ends the process if it runs out of memory during one. */
  mayCollect(): boolean
  /** Closes the native objects whose JavaScript objects were collected, and returns how many. */
  reclaim(): number
}
/** The add-on, once it is loaded. Before that there is nothing to reclaim; questions about the host work without the add-on. */
let addon: Reclaimer | undefined

/** Takes the add-on over. ./native.ts calls this once. */
export function reclaimBy(loaded: Reclaimer): void {
  addon = loaded
}

let collect: (() => void) | undefined

/** Returns the garbage collector's function without --expose-gc on the command line. Other contexts do not see it. */
function collector(): () => void {
  setFlagsFromString('--expose-gc')
  try {
    return runInNewContext('gc') as () => void
  } finally {
    setFlagsFromString('--no-expose-gc')
  }
}

/** Closes at once what JavaScript has lost, and returns how many objects; finalizers would run only in a later turn of the event loop. */
function reclaim(): number {
  if (!addon) return 0
  if (addon.mayCollect()) {
    collect ??= globalThis.gc ?? collector()
    collect()
  }
  return addon.reclaim()
}

const passing = ['EMFILE', 'ENFILE', 'ENOMEM', 'EDQUOT']
/** The errno's name in an error of the library or of node:fs. */
const errnoOf = (error: unknown): string => {
  const { errno, code } = (error ?? {}) as { errno?: unknown; code?: unknown }
  return String(typeof errno === 'string' ? errno : code)
}

/**
 * Makes something that takes descriptors, memory or mappings. If these have run out, lost objects are collected and `make` is called once more.
 * If that fails too, the first failure is reported.
 * @param make throws or returns a negative errno if it fails, and then leaves nothing behind
 */
export function making<T>(make: () => T): T {
  const failed = (result: T) => typeof result === 'number' && result < 0
  const isPassing = (errno: string) => passing.includes(errno) && reclaim() > 0
  try {
    const made = make()
    if (!failed(made) || !isPassing(errnoName(Number(made)))) return made
    const again = make()
    return failed(again) ? made : again
  } catch (error) {
    if (!isPassing(errnoOf(error))) throw error
    const again = make()
    if (failed(again)) throw error
    return again
  }
}

/** Allocates zeroed bytes, possibly many. V8's own error says neither what ran out nor what to do. */
export function zeroed(bytes: number): Uint8Array<ArrayBuffer> {
  if (bytes > constants.MAX_LENGTH)
    throw new KvmError('limit', `allocating ${bytes} bytes: this Node makes no array of more than ${constants.MAX_LENGTH}; take them in parts`, {
      limit: constants.MAX_LENGTH
    })
  try {
    return new Uint8Array(bytes)
  } catch (error) {
    throw exhaustion(`allocating ${bytes} bytes`, 'ENOMEM') ?? error
  }
}

/**
 * Opens a file as making() does. If the process is out of descriptors or memory, the error is a KvmError, whatever the caller makes of other
 * errors.
 */
export function opening<T>(asked: string, open: () => T): T {
  try {
    return making(open)
  } catch (error) {
    throw exhaustion(asked, errnoOf(error)) ?? error
  }
}

/** Opens a file that may be absent or unreadable, and then returns `otherwise`. It throws if the process can open no file: nobody knows then. */
export function openingOr<T>(otherwise: T, asked: string, open: () => T): T {
  try {
    return opening(asked, open)
  } catch (error) {
    if (error instanceof KvmError) throw error
    return otherwise
  }
}
