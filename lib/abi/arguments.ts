/** Checks of the arguments that callers give. Each error names the argument, shows the value and says which values are allowed. */
import { isProxy, isUint8Array } from 'node:util/types'
import { KvmError } from './errors.js'
import { hex, shorten, visible } from './text.js'

/** 1024 bytes. */
export const KiB = 1024
/** 1024 KiB. */
export const MiB = 1024 * KiB
/** 1024 MiB. */
export const GiB = 1024 * MiB
/** The bytes in a small page. */
export const pageSize = 4 * KiB

// The getters of the prototype, because an instance may have its own properties of these names.
const getterOf = <K extends 'buffer' | 'byteLength' | 'byteOffset'>(name: K) =>
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), name)?.get as (this: Uint8Array) => Uint8Array[K]
const bufferOf = getterOf('buffer')
const byteLengthOf = getterOf('byteLength')
const byteOffsetOf = getterOf('byteOffset')

function kindOf(value: unknown): string {
  if (isUint8Array(value)) return `${byteLengthOf.call(value)} bytes`
  if (isProxy(value)) return 'a proxy'
  return Array.isArray(value) ? `an array of ${value.length}` : typeof value === 'function' ? 'a function' : 'an object'
}

/** Shows an object by its kind alone, because its toString() is a stranger's code. */
function show(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'string') return shorten(visible(JSON.stringify(value)), 80)
  if (typeof value === 'bigint') return `${shorten(hex(value), 40)} (a bigint)`
  if (typeof value === 'object' || typeof value === 'function') return kindOf(value)
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? hex(value) : String(value)
}

export function argumentError(argument: string, value: unknown, expected: string): KvmError {
  return new KvmError('argument', `${argument} is ${show(value)}; it must be ${expected}`, { argument, value })
}

/** Checks for a whole number from `least` to `most`. */
export function checkInteger(argument: string, value: unknown, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most)
    throw argumentError(argument, value, `a whole number from ${least} to ${most}`)
  return value
}

/** Checks for a guest or host address: below 2^52, and a multiple of `alignment`. */
export function checkAddress(argument: string, value: unknown, alignment = 1): number {
  if (typeof value === 'bigint') throw argumentError(argument, value, 'a number (addresses are numbers; registers are bigints)')
  checkInteger(argument, value, 0, 2 ** 52 - 1)
  if ((value as number) % alignment !== 0) throw argumentError(argument, value, `a multiple of ${alignment}`)
  return value as number
}

/** The default for a length: all bytes after the offset. The offset is checked first, because subtracting an object would call its valueOf(). */
export const restAfter = (offset: unknown, size: number): number => size - checkInteger('offset', offset)

/** Checks for a byte count: above 0, and a multiple of `alignment`. */
export function checkSize(argument: string, value: unknown, alignment = 1): number {
  checkInteger(argument, value, 1, 2 ** 52)
  if ((value as number) % alignment !== 0) throw argumentError(argument, value, `a multiple of ${alignment}`)
  return value as number
}

export function checkBoolean(argument: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw argumentError(argument, value, 'true or false')
  return value
}

const allBits = 2n ** 64n - 1n
/** Checks for a 64-bit value all of whose bits count: a register, an MSR, a page-table entry. */
export function checkBits(argument: string, value: unknown): bigint {
  if (typeof value !== 'bigint' || value < 0n || value > allBits) throw argumentError(argument, value, 'a bigint from 0 to 2^64 - 1')
  return value
}

/** Checks for a Uint8Array. `instanceof` would not do: an object without bytes can pass it, and bytes of another realm fail it. */
export function checkBytes(argument: string, value: unknown): Uint8Array {
  if (!isUint8Array(value)) throw argumentError(argument, value, 'a Uint8Array')
  return value
}

/** Copies the bytes, so that nobody can change or detach them after the check. */
export function copyBytes(argument: string, value: unknown, length: number): Uint8Array {
  const source = checkBytes(argument, value)
  // The length is 0 if the memory was transferred away.
  if (byteLengthOf.call(source) !== length) throw argumentError(argument, source, `${length} bytes`)
  return new Uint8Array(source)
}

/** The first bytes of memory, in place. It must not become smaller: whoever reads there later would have nothing. */
export function bytesWithin(argument: string, value: unknown, length: number): Uint8Array {
  const memory = checkBytes(argument, value)
  const buffer = bufferOf.call(memory)
  if (byteLengthOf.call(memory) < length) throw argumentError(argument, memory, `at least ${length} bytes`)
  if ('resizable' in buffer && buffer.resizable) throw argumentError(argument, memory, 'in a buffer that cannot be resized')
  return new Uint8Array(buffer, byteOffsetOf.call(memory), length)
}

/** Copies an iterable into an array. `most` limits the count to one that the kernel's structures can express. */
export function checkList<T>(argument: string, value: Iterable<T>, most = 65_536): T[] {
  if (typeof value !== 'object' || typeof value?.[Symbol.iterator] !== 'function') throw argumentError(argument, value, 'an array')
  const list: T[] = []
  try {
    for (const item of value) {
      if (list.length === most) throw argumentError(argument, value, `at most ${most}`)
      list.push(item)
    }
  } catch (error) {
    // Of what only looks like an iterable, or has lost its memory.
    if (!(error instanceof TypeError)) throw error
    throw new KvmError('argument', `${argument} is no list: ${error.message}`, { argument, value, cause: error })
  }
  return list
}

/** Whether its values have names: those of a list, a map or bytes would be overlooked. */
export const hasNames = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !(Symbol.iterator in value) && !ArrayBuffer.isView(value)

/** Checks an object of options. An unknown name is an error, so that a misspelled option does not pass silently. */
export function checkOptions<T extends object>(argument: string, value: T, known: readonly (keyof T & string)[]): T {
  if (!hasNames(value)) throw argumentError(argument, value, `an object with ${known.join(', ')}`)
  for (const name of Object.keys(value))
    if (!known.includes(name as keyof T & string))
      throw new KvmError('argument', `${argument} has no option '${name}'; there are ${known.join(', ')}`, { argument: name })
  return value
}

/** Checks for an AbortSignal of any realm, by the members that callers use. */
export function checkSignal(argument: string, value: AbortSignal): AbortSignal {
  const signal = (typeof value === 'object' ? value : null) as Partial<AbortSignal> | null
  const methods = [signal?.throwIfAborted, signal?.addEventListener, signal?.removeEventListener]
  if (typeof signal?.aborted !== 'boolean' || methods.some((method) => typeof method !== 'function'))
    throw argumentError(argument, value, 'an AbortSignal')
  return value
}

export function checkOneOf<T extends string>(argument: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) throw argumentError(argument, value, `one of ${choices.map((choice) => `'${choice}'`).join(', ')}`)
  return value as T
}

export { hex } from './text.js'

/** Formats a half-open range of addresses for messages: `0xa000-0xb000`. */
export const hexRange = (start: number, size: number) => `${hex(start)}-${hex(start + size)}`
