/** The kinds of fields that a C structure has: how each lies in memory, and how it is read, checked and written. */
import { argumentError, checkBits, checkInteger, copyBytes } from './arguments.js'
import { KvmError } from './errors.js'
import { hex } from './text.js'

/** How one field lies in memory, and how it is read, checked and written. */
export interface Field<T> {
  readonly size: number
  get(view: DataView, offset: number): T
  /**
   * Returns the value if the field can hold it whole; a value that is not a scalar is copied. Everything that a caller gave is checked before
   * anything is written.
   * @param name what an error calls the field: `kvm_sregs.gdt.limit`
   */
  check(name: string, value: unknown): T
  /** Writes the value that check() returned. */
  set(view: DataView, offset: number, value: T): void
}

type Getter<T> = (view: DataView, offset: number) => T
type Setter<T> = (view: DataView, offset: number, value: T) => void

function integer(size: number, [least, most]: readonly [number, number], get: Getter<number>, set: Setter<number>): Field<number> {
  return { size, get, set, check: (name, value) => checkInteger(name, value, least, most) }
}

export const u8 = integer(
  1,
  [0, 0xff],
  (v, o) => v.getUint8(o),
  (v, o, x) => v.setUint8(o, x)
)
export const u16 = integer(
  2,
  [0, 0xffff],
  (v, o) => v.getUint16(o, true),
  (v, o, x) => v.setUint16(o, x, true)
)
export const u32 = integer(
  4,
  [0, 0xffff_ffff],
  (v, o) => v.getUint32(o, true),
  (v, o, x) => v.setUint32(o, x, true)
)
export const i8 = integer(
  1,
  [-(2 ** 7), 2 ** 7 - 1],
  (v, o) => v.getInt8(o),
  (v, o, x) => v.setInt8(o, x)
)
export const i16 = integer(
  2,
  [-(2 ** 15), 2 ** 15 - 1],
  (v, o) => v.getInt16(o, true),
  (v, o, x) => v.setInt16(o, x, true)
)
export const i32 = integer(
  4,
  [-(2 ** 31), 2 ** 31 - 1],
  (v, o) => v.getInt32(o, true),
  (v, o, x) => v.setInt32(o, x, true)
)

/** 64 bits as a bigint, because all of them count in registers, MSRs and SPTEs. */
export const u64: Field<bigint> = {
  size: 8,
  get: (view, offset) => view.getBigUint64(offset, true),
  check: checkBits,
  set: (view, offset, value) => view.setBigUint64(offset, value, true)
}
export const i64: Field<bigint> = {
  size: 8,
  get: (view, offset) => view.getBigInt64(offset, true),
  check(name, value) {
    if (typeof value !== 'bigint' || BigInt.asIntN(64, value) !== value) throw argumentError(name, value, 'a bigint from -2^63 to 2^63 - 1')
    return value
  },
  set: (view, offset, value) => view.setBigInt64(offset, value, true)
}

/** The type of bits(). */
export interface Bits extends Field<number> {
  readonly width: number
}

/** A C bit field: `width` bits, starting at bit `low` of `size` bytes. Writing it leaves the other bits as they are. */
export function bits(size: number, low: number, width: number): Bits {
  const mask = 2 ** width - 1
  const read = (view: DataView, offset: number) => {
    let all = 0
    for (let byte = size - 1; byte >= 0; byte--) all = all * 0x100 + view.getUint8(offset + byte)
    return all
  }
  return {
    size,
    width,
    get: (view, offset) => (read(view, offset) >>> low) & mask,
    check: (name, value) => checkInteger(name, value, 0, mask),
    set(view, offset, value) {
      const all = (read(view, offset) & ~(mask << low)) | (value << low)
      for (let byte = 0; byte < size; byte++) view.setUint8(offset + byte, (all >>> (8 * byte)) & 0xff)
    }
  }
}

/** A 64-bit address or size below 2^53, as a number. */
export const address = integer(
  8,
  [0, Number.MAX_SAFE_INTEGER],
  (v, o) => {
    const high = v.getUint32(o + 4, true)
    // No address gets here: processors have at most 52 address bits.
    if (high >= 2 ** 21) throw new KvmError('limit', `a field holds ${hex(v.getBigUint64(o, true))}, which is too large for a number`)
    return v.getUint32(o, true) + high * 2 ** 32
  },
  (v, o, x) => {
    v.setUint32(o, x % 2 ** 32, true)
    v.setUint32(o + 4, Math.floor(x / 2 ** 32), true)
  }
)

/** A run of bytes, read in place: the Uint8Array is a window on the structure. */
export function bytes(length: number): Field<Uint8Array> {
  const window = (view: DataView, offset: number) => new Uint8Array(view.buffer, view.byteOffset + offset, length)
  return {
    size: length,
    get: window,
    check: (name, value) => copyBytes(name, value, length),
    set: (view, offset, value) => window(view, offset).set(value)
  }
}

/** The type of array(). The type of a plain object reads the element's type from it. */
export interface ArrayOf<F extends Field<any>> extends Field<ValueOf<F>[]> {
  readonly element: F
}

/** `length` equal fields. A read gives a new array; a write sets all elements. Elements that are structures or bytes are windows on the memory. */
export function array<F extends Field<any>>(element: F, length: number): ArrayOf<F> {
  return {
    size: element.size * length,
    element,
    get: (view, offset) => Array.from({ length }, (_, index) => element.get(view, offset + index * element.size)),
    check(name, value) {
      if (!Array.isArray(value) || value.length !== length) throw argumentError(name, value, `an array of ${length}`)
      return Array.from({ length }, (_, index) => element.check(`${name}[${index}]`, value[index]))
    },
    set: (view, offset, value) => value.forEach((item, index) => element.set(view, offset + index * element.size, item))
  }
}

export type Fields = Record<string, Field<any>>
export type ValueOf<F> = F extends Field<infer T> ? T : never
export type ValuesOf<F extends Fields> = { -readonly [K in keyof F]: ValueOf<F[K]> }
