/** Checks of what callers hand in. Each names the argument, shows the value and says what would do. */
import { KvmError } from './errors.js'

/** 1024 bytes. */
export const KiB = 1024
/** 1024 KiB. */
export const MiB = 1024 * KiB
/** 1024 MiB. */
export const GiB = 1024 * MiB
/** Bytes in a small page. */
export const pageSize = 4 * KiB

const show = (value: unknown) =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
    ? `0x${value.toString(16)}`
    : typeof value === 'string'
      ? JSON.stringify(value)
      : String(value)

export function argumentError(argument: string, value: unknown, expected: string): KvmError {
  return new KvmError('argument', `${argument} is ${show(value)}; it must be ${expected}`, { argument, value })
}

/** A whole number from `least` to `most`. */
export function checkInteger(argument: string, value: unknown, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most)
    throw argumentError(argument, value, `a whole number from ${least} to ${most}`)
  return value
}

/** A guest or host address: below 2^52, and on a page border where it must be. */
export function checkAddress(argument: string, value: unknown, alignment = 1): number {
  if (typeof value === 'bigint') throw argumentError(argument, value, 'a number (addresses are numbers; registers are bigints)')
  checkInteger(argument, value, 0, 2 ** 52 - 1)
  if ((value as number) % alignment !== 0) throw argumentError(argument, value, `a multiple of ${alignment}`)
  return value as number
}

/** A byte count: above 0, and whole pages where it must be. */
export function checkSize(argument: string, value: unknown, alignment = 1): number {
  checkInteger(argument, value, 1, 2 ** 52)
  if ((value as number) % alignment !== 0) throw argumentError(argument, value, `a multiple of ${alignment}`)
  return value as number
}

export function checkBoolean(argument: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw argumentError(argument, value, 'true or false')
  return value
}

export function checkBytes(argument: string, value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw argumentError(argument, value === null ? 'null' : typeof value, 'a Uint8Array')
  return value
}

/** An object of options with none that is unknown: a misspelled name is an error, not silence. */
export function checkOptions<T extends object>(argument: string, value: T, known: readonly (keyof T & string)[]): T {
  if (typeof value !== 'object' || value === null) throw argumentError(argument, value, `an object with ${known.join(', ')}`)
  for (const name of Object.keys(value))
    if (!known.includes(name as keyof T & string))
      throw new KvmError('argument', `${argument} has no option '${name}'; there are ${known.join(', ')}`, { argument: name })
  return value
}

export function checkOneOf<T extends string>(argument: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) throw argumentError(argument, value, `one of ${choices.map((choice) => `'${choice}'`).join(', ')}`)
  return value as T
}

/** Hexadecimal, as addresses are written everywhere in the library. */
export const hex = (value: number | bigint) => `0x${value.toString(16)}`
/** A half-open range of addresses for messages: `0xa000-0xb000`. */
export const hexRange = (start: number, size: number) => `${hex(start)}-${hex(start + size)}`
