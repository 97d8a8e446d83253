/**
 * When a process has no more descriptors, memory or mappings: what nobody holds any more is collected first. V8 knows little of what its
 * objects hold outside its heap, so that many lost VMs may be uncollected when the descriptors run out.
 */
import { constants } from 'node:buffer'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { errnoName, exhaustion, KvmError } from './errors.js'

/** What of the add-on is needed here. */
interface Reclaimer {
  /** Whether there is memory for the collector: it ends the process where it finds none. */
  mayCollect(): boolean
  /** Ends what objects hold that the collector has found to be lost; how many. */
  reclaim(): number
}
/** The add-on, once it is loaded. Before that there is nothing to reclaim, and questions about the host work without it. */
let addon: Reclaimer | undefined

/** Hands the add-on over; ./native.ts calls it once. */
export function reclaimBy(loaded: Reclaimer): void {
  addon = loaded
}

let collect: (() => void) | undefined

/** The collector, without the command line's --expose-gc. Other contexts do not see it. */
function collector(): () => void {
  setFlagsFromString('--expose-gc')
  try {
    return runInNewContext('gc') as () => void
  } finally {
    setFlagsFromString('--no-expose-gc')
  }
}

/** Ends what JavaScript has lost, at once: finalizers would run in a later turn of the event loop. How many objects. */
function reclaim(): number {
  if (!addon) return 0
  if (addon.mayCollect()) {
    collect ??= globalThis.gc ?? collector()
    collect()
  }
  return addon.reclaim()
}

const passing = ['EMFILE', 'ENFILE', 'ENOMEM', 'EDQUOT']
/** Of an error of the library or of node:fs. */
const errnoOf = (error: unknown): string => {
  const { errno, code } = (error ?? {}) as { errno?: unknown; code?: unknown }
  return String(typeof errno === 'string' ? errno : code)
}

/**
 * Makes something that takes descriptors, memory or mappings. Where these have run out, what is lost is collected, and it is made once more;
 * if that fails too, the first failure is the one to tell of.
 * @param make throws, or returns a negative errno, when it fails; then nothing is left of it
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

/** Zeroed bytes, of which there may be many: V8's own error says neither what ran out nor what to do. */
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
 * The same as making() for what opens a file: that the process is out of descriptors or memory is a KvmError, whatever the caller makes of
 * other errors.
 */
export function opening<T>(asked: string, open: () => T): T {
  try {
    return making(open)
  } catch (error) {
    throw exhaustion(asked, errnoOf(error)) ?? error
  }
}

/** The same for a file that may be absent or unreadable: then `otherwise`. Where the process can open no file at all, nobody knows. */
export function openingOr<T>(otherwise: T, asked: string, open: () => T): T {
  try {
    return opening(asked, open)
  } catch (error) {
    if (error instanceof KvmError) throw error
    return otherwise
  }
}
