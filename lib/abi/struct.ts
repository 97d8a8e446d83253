/**
 * One schema per KVM structure. The generated list of fields describes the C layout; the schema turns it into accessors and a TypeScript type.
 * The instance *is* the bytes that go to the ioctl, so reading one register decodes one register.
 */
import { inspect } from 'node:util'
import { argumentError, checkBits, checkBytes, checkInteger, copyBytes } from './arguments.js'
import { KvmError } from './errors.js'
import { hex, visible } from './text.js'

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
type ValueOf<F> = F extends Field<infer T> ? T : never
export type ValuesOf<F extends Fields> = { -readonly [K in keyof F]: ValueOf<F[K]> }
export type StructInstance<F extends Fields> = { toObject(): PlainOf<F> } & Struct & ValuesOf<F>

/** A value for JSON, which has no bigints: 64-bit values become hexadecimal text, as in traces. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return hex(value)
  if (value instanceof Struct) return value.toJSON()
  if (value instanceof Uint8Array) return [...value]
  return Array.isArray(value) ? value.map(plain) : value
}

function copy(value: unknown): unknown {
  if (value instanceof Struct) return value.toObject()
  if (value instanceof Uint8Array) return value.slice()
  return Array.isArray(value) ? value.map(copy) : value
}

/** The memory of one KVM structure. Its fields are read and written in place, so a spread (`{ ...value }`) lacks them; toObject() copies them. */
export class Struct {
  /** The bytes given to the kernel. */
  readonly bytes: Uint8Array
  protected readonly view: DataView

  constructor(memory: Uint8Array) {
    this.bytes = memory
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength)
  }

  #map(change: (value: unknown) => unknown): Record<string, unknown> {
    const { fields } = this.constructor as unknown as StructType<Fields>
    return Object.fromEntries(Object.keys(fields).map((name) => [name, change((this as unknown as Record<string, unknown>)[name])]))
  }

  /** Returns the fields as a plain object that shares no memory with this one. */
  toObject(): Record<string, unknown> {
    return this.#map(copy)
  }
  /** Returns the fields for JSON, with 64-bit values as hexadecimal text. */
  toJSON(): Record<string, unknown> {
    return this.#map(plain)
  }

  [inspect.custom](): unknown {
    return this.toObject()
  }
}

type Plain<F> = F extends StructType<infer G> ? PlainOf<G> : F extends ArrayOf<infer E> ? Plain<E>[] : ValueOf<F>
/** What toObject() returns and the constructor takes. */
export type PlainOf<F extends Fields> = { -readonly [K in keyof F]: Plain<F[K]> }
type Given<F> = F extends StructType<infer G> ? Some<G> : F extends ArrayOf<infer E> ? Given<E>[] : ValueOf<F>
/** Some fields by name, also of nested structures. If members share memory (a union in C), the values given for them must agree. */
export type Some<F extends Fields> = { -readonly [K in keyof F]?: Given<F[K]> }

/** The class made from a schema. `new` gives a zeroed structure with some fields set, or a copy; `over` reads one that is already in memory. */
export interface StructType<F extends Fields> extends Field<StructInstance<F>> {
  readonly structName: string
  readonly fields: F
  readonly offsets: { readonly [K in keyof F]: number }
  /** The arrays that may follow the structure in memory: their element types, by C name. They are neither fields nor part of the size. */
  readonly flexible: Fields
  new (values?: Some<F>): StructInstance<F>
  over(memory: Uint8Array): StructInstance<F>
  /** Writes fields by name. If one value does not fit, nothing is written. */
  assign(target: StructInstance<F>, name: string, values: Some<F>): void
}

/** The instance type of a schema: `type Registers = StructOf<typeof Registers>`. */
export type StructOf<S> = S extends StructType<infer F> ? StructInstance<F> : never

/** Checks the fields of a plain object and reads each of them once. */
function checkFields(fields: Fields, name: string, values: unknown): Map<string, unknown> {
  if (typeof values !== 'object' || values === null || Array.isArray(values) || ArrayBuffer.isView(values))
    throw argumentError(name, values, `an object with ${Object.keys(fields).join(', ')}`)
  if (values instanceof Struct) throw argumentError(name, values, 'an instance of its own kind, or a plain object')
  return new Map(
    Object.keys(values).map((key) => {
      if (!Object.hasOwn(fields, key)) throw unknownField(fields, name, key)
      return [key, (fields[key] as Field<unknown>).check(`${name}.${key}`, (values as Record<string, unknown>)[key])]
    })
  )
}

function unknownField(fields: Fields, name: string, key: string): KvmError {
  const advice = key === 'bytes' ? 'a spread of a structure lacks its fields: spread its toObject()' : `there are ${Object.keys(fields).join(', ')}`
  return new KvmError('argument', `${name} has no field '${visible(key)}'; ${advice}`, { argument: `${name}.${key}` })
}

/**
 * Refuses values for fields that share memory (a union in C) and differ there: the last one would win and the others would be lost. To see which
 * bits a field writes, the value is written once over zeros and once over ones.
 */
function checkAgreement(
  { fields, offsets, size }: { fields: Fields; offsets: Record<string, number>; size: number },
  name: string,
  values: ReadonlyMap<string, unknown>
): void {
  const known = new Uint8Array(size)
  const isKnown = new Uint8Array(size)
  for (const [key, value] of values) {
    const field = fields[key] as Field<unknown>
    const [zeros, ones] = [0, 0xff].map((fill) => {
      const memory = new Uint8Array(field.size).fill(fill)
      field.set(new DataView(memory.buffer), 0, value)
      return memory
    }) as [Uint8Array, Uint8Array]
    zeros.forEach((byte, index) => {
      const at = (offsets[key] as number) + index
      const written = ~(byte ^ (ones[index] as number)) & 0xff
      if (((known[at] as number) ^ byte) & (isKnown[at] as number) & written)
        throw new KvmError('argument', `${name}.${key} shares memory with a field given before it, and differs there; give one of them`, {
          argument: `${name}.${key}`
        })
      known[at] = ((known[at] as number) & ~written) | (byte & written)
      isKnown[at] = (isKnown[at] as number) | written
    })
  }
}

/** A checked value for a structure: all bytes of an instance, or some fields. */
type Checked = Uint8Array | ReadonlyMap<string, unknown>

type Viewed = { view: DataView }
const accessor = (field: Field<any>, offset: number, name: string): PropertyDescriptor & ThisType<Viewed> => ({
  get() {
    return field.get(this.view, offset)
  },
  set(value: unknown) {
    field.set(this.view, offset, field.check(name, value))
  }
})
// The same for 64-bit registers, in code of its own: V8 compiles a direct access only where one place sees one type.
const registerAccessor = (_: unknown, offset: number, name: string): PropertyDescriptor & ThisType<Viewed> => ({
  get() {
    return this.view.getBigUint64(offset, true)
  },
  set(value: bigint) {
    this.view.setBigUint64(offset, checkBits(name, value), true)
  }
})

/** Where each field lies, and how it is read. */
type Members<F extends Fields> = { readonly [K in keyof F]: readonly [offset: number, field: F[K]] }

interface Layout {
  readonly fields: Fields
  readonly offsets: Record<string, number>
  /** Whether some fields lie in the same bytes. */
  readonly sharesMemory: boolean
}

function layOut(members: Members<Fields>): Layout {
  const fields: Fields = {}
  const offsets: Record<string, number> = {}
  let end = 0
  let sharesMemory = false
  for (const [name, [offset, field]] of Object.entries(members)) {
    fields[name] = field
    offsets[name] = offset
    sharesMemory ||= offset < end
    end = Math.max(end, offset + field.size)
  }
  return { fields, offsets, sharesMemory }
}

/** Gives instances an accessor for each field. */
function defineAccessors(structName: string, { fields, offsets }: Layout, prototype: object): void {
  for (const [name, field] of Object.entries(fields))
    Object.defineProperty(prototype, name, (field === u64 ? registerAccessor : accessor)(field, offsets[name] as number, `${structName}.${name}`))
}

/**
 * Describes a C structure or union.
 * @param structName the C name, which the layout test hands to the compiler: `kvm_regs`. An unnamed part has its path: `kvm_run.io`
 * @param members called when the structure is first used, since a program uses few of the structures that it imports
 * @param behind the element types of the arrays that follow the structure
 */
export function struct<F extends Fields>(
  structName: string,
  size: number,
  members: () => Members<F>,
  behind: () => Fields = () => ({})
): StructType<F> {
  let laidOut: Layout | undefined
  const layout = () => (laidOut ??= layOut(members()))
  let isUsable = false
  const makeUsable = () => {
    defineAccessors(structName, layout(), Structure.prototype)
    isUsable = true
  }
  class Structure extends Struct {
    static readonly structName = structName
    static readonly size = size
    static get fields() {
      return layout().fields
    }
    static get offsets() {
      return layout().offsets
    }
    static get flexible() {
      return behind()
    }

    constructor(values?: unknown) {
      if (!isUsable) makeUsable()
      super(new Uint8Array(size))
      if (values !== undefined) Structure.assign(this, structName, values)
    }

    static assign(target: Structure, name: string, values: unknown) {
      Structure.set(target.view, 0, Structure.check(name, values))
    }
    // Calls only the base constructor, which does not copy the memory.
    static over(memory: Uint8Array): Structure {
      if (checkBytes('memory', memory).byteLength < size) throw argumentError('memory', memory.byteLength, `the ${size} bytes of ${structName}`)
      if (!isUsable) makeUsable()
      return Reflect.construct(Struct, [memory.subarray(0, size)], Structure)
    }
    static get(view: DataView, offset: number): Structure {
      return Structure.over(new Uint8Array(view.buffer, view.byteOffset + offset, size))
    }
    static check(name: string, value: unknown): Checked {
      if (value instanceof Structure) return copyBytes(`${name}.bytes`, value.bytes, size)
      const checked = checkFields(layout().fields, name, value)
      if (layout().sharesMemory) checkAgreement(Structure, name, checked)
      return checked
    }
    static set(view: DataView, offset: number, value: Checked) {
      if (value instanceof Uint8Array) return new Uint8Array(view.buffer, view.byteOffset + offset, size).set(value)
      const { fields, offsets } = layout()
      for (const [key, part] of value) fields[key]?.set(view, offset + (offsets[key] as number), part)
    }
  }
  return Structure as unknown as StructType<F>
}

/** Makes a structure with some fields set. Errors use the caller's name for it: `entries[3]`. */
export function entryOf<F extends Fields>(type: StructType<F>, name: string, values: Some<F>): StructInstance<F> {
  const entry = new type()
  type.assign(entry, name, values)
  return entry
}
