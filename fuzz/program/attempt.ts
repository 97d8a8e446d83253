/**
 * The functions with which a fuzzer's program is written. A child runs these functions as they are, and a printed program carries the text of those
 * that it uses. So each of them names only what the others, the library and Node export.
 */
import { writeSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { KvmError } from './library.js'

/** The reports of a child to its parent, a line each: a fault; that the child means to end; that it lacks something from now on, and no longer. */
export type Kind = 'untyped' | 'wrong' | 'hang' | 'leak' | 'leaving' | 'lacking' | 'enough'

/** What this thread has done so far. */
export interface Journal {
  calls: number
  /** Whether the last attempt threw. */
  failed: boolean
  /** Promises that the library returned and that did not settle yet, each with the call that returned it. */
  pending: Map<unknown, string>
  /** Objects that go on until they are closed, though the program may have lost them: a source that is iterated over, a page service. */
  kept: { close(): void }[]
}

export function journal(): Journal {
  return ((globalThis as { nodeKvmFuzz?: Journal }).nodeKvmFuzz ??= { calls: 0, failed: false, pending: new Map(), kept: [] })
}

/** Writes a report at once, without a stream: the next call may be the last. */
export function report(kind: Kind, what: string, call = ''): void {
  const log = process.env['NODE_KVM_FUZZ_LOG']
  if (log) writeSync(Number(log), `${JSON.stringify({ kind, what, call })}\n`)
  else if (what) console.error(`${kind}: ${what} ${call}`)
}

/** Writes a line for each call: the parent's watchdog checks whether there are more lines, and the last one says what ended the process. */
export function progress(what = ''): void {
  const log = process.env['NODE_KVM_FUZZ_LOG']
  if (log) writeSync(Number(log), `.${what.slice(0, 100).replaceAll('\n', ' ')}\n`)
}

/** An error that adversarial code itself throws: the library may pass it on. */
export function planted(): Error {
  return Object.assign(new Error('thrown by the caller itself'), { planted: true })
}

/** Whether the library may throw this: its own errors, several of them, and errors that callers threw. */
export function isTyped(error: unknown): boolean {
  if (error instanceof KvmError || (error as { planted?: boolean } | null)?.planted === true) return true
  // An error of another environment came through a structured clone.
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every((each) => isTyped(each))
  return false
}

/** Whether the language itself refused the object on which a method was called: it lacks the private members, or a method. */
export function isOfReceiver(error: unknown): boolean {
  // A close() takes every step even if one failed, and reports all failures.
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every((each) => isTyped(each) || isOfReceiver(each))
  return error instanceof TypeError && /private (member|method|field)|^Receiver must be|^this\.\w+ is not a function$/.test(error.message)
}

export function judgeError(error: unknown, call: string): void {
  if (isTyped(error)) return
  const { name, message, stack = '' } = error instanceof Error ? error : { name: typeof error, message: String(error) }
  const where = /\n\s+at (.*)/.exec(stack)?.[1] ?? ''
  report('untyped', `${name}: ${message} (${where})`, call)
}

/** Judges how a promise of the library ends. The end of the program judges whether it ends. */
export function follow<T>(result: T, call: string, isAllowed: (error: unknown) => boolean = () => false): T {
  const promise = result as PromiseLike<unknown> | null | undefined
  if (typeof promise?.then !== 'function') return result
  const { pending } = journal()
  pending.set(promise, call)
  promise.then(
    () => pending.delete(promise),
    (error: unknown) => {
      pending.delete(promise)
      if (!isAllowed(error)) judgeError(error, call)
    }
  )
  return result
}

/** Makes one call of the library. The call is left out if something that it needs is missing, because the call that should have made it failed. */
export function attempt<T>(call: () => T, ...needs: unknown[]): T | undefined {
  return perform(call, () => false, needs)
}

/** Does the same for a method that is called on an object of another kind, which the language may refuse. */
export function attemptOnOther<T>(call: () => T, ...needs: unknown[]): T | undefined {
  return perform(call, isOfReceiver, needs)
}

export function perform<T>(call: () => T, isAllowed: (error: unknown) => boolean, needs: unknown[]): T | undefined {
  if (needs.includes(undefined)) return undefined
  const now = journal()
  now.calls++
  now.failed = false
  progress(String(call))
  try {
    return follow(call(), String(call), isAllowed)
  } catch (error) {
    if (!isAllowed(error)) judgeError(error, String(call))
    now.failed = true
    return undefined
  }
}

/** Ends the process, or the Worker, in the middle of its work. */
export function leave(): never {
  if (isMainThread) report('leaving', '')
  process.exit(0)
}
