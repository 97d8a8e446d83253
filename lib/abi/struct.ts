/**
 * One schema per KVM structure: from the field list follow the offsets and size of the C layout, the accessors, and the
 * TypeScript type. The instance *is* the bytes that go to the ioctl, so reading one register decodes one register.
 */
import { inspect } from 'node:util'
import { argumentError, checkBytes, checkInteger, copyBytes } from './arguments.js'
import { KvmError } from './errors.js'
import { hex, visible } from './text.js'

/** How one field lies in memory, and how it is read, checked and written. */
export interface Field<T> {
  readonly size: number
  readonly alignment: number
  get(view: DataView, offset: number): T
  /**
   * Hands on the value, copied where it is not a scalar, if the field holds it whole. All of what a caller gave is checked before the first
   * of it is written.
   * @param name for the error: `kvm_sregs.gdt.limit`
   */
  check(name: string, value: unknown): T
  /** Writes what check() handed on. */
  set(view: DataView, offset: number, value: T): void
}

type Getter<T> = (view: DataView, offset: number) => T
type Setter<T> = (view: DataView, offset: number, value: T) => void

function integer(size: number, [least, most]: readonly [number, number], get: Getter<number>, set: Setter<number>): Field<number> {
  return { size, alignment: size, get, set, check: (name, value) => checkInteger(name, value, least, most) }
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
export const i32 = integer(
  4,
  [-(2 ** 31), 2 ** 31 - 1],
  (v, o) => v.getInt32(o, true),
  (v, o, x) => v.setInt32(o, x, true)
)

const largest = 2n ** 64n - 1n
const is64 = (value: unknown): value is bigint => typeof value === 'bigint' && value >= 0n && value <= largest
const no64 = (name: string, value: unknown) => argumentError(name, value, 'a bigint from 0 to 2^64 - 1')
/** All 64 bits count: registers, MSRs, SPTEs. */
export const u64: Field<bigint> = {
  size: 8,
  alignment: 8,
  get: (view, offset) => view.getBigUint64(offset, true),
  check(name, value) {
    if (!is64(value)) throw no64(name, value)
    return value
  },
  set: (view, offset, value) => view.setBigUint64(offset, value, true)
}

/** A 64-bit address or size below 2^53, as a number. */
export const address = integer(
  8,
  [0, Number.MAX_SAFE_INTEGER],
  (v, o) => {
    const high = v.getUint32(o + 4, true)
    // Never of an address: processors have 52 bits of them at most.
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
    alignment: 1,
    get: window,
    check: (name, value) => copyBytes(name, value, length),
    set: (view, offset, value) => window(view, offset).set(value)
  }
}

/** `length` equal fields; read as a copy, written whole. */
export function array<T>(element: Field<T>, length: number): Field<T[]> {
  return {
    size: element.size * length,
    alignment: element.alignment,
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

/** For JSON, which has no bigints: 64-bit values as hexadecimal text, as traces have them. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return hex(value)
  if (value instanceof Uint8Array) return [...value]
  return Array.isArray(value) ? value.map(plain) : value
}

/** The memory of one KVM structure. Its fields are read and written in place, so a spread (`{ ...value }`) has none of them: toObject() copies. */
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

  /** The fields as a plain object that shares nothing with this. */
  toObject(): Record<string, unknown> {
    return this.#map((value) => (value instanceof Struct ? value.toObject() : value instanceof Uint8Array ? value.slice() : value))
  }
  /** The same for JSON: 64-bit values as hexadecimal text. */
  toJSON(): Record<string, unknown> {
    return this.#map((value) => (value instanceof Struct ? value.toJSON() : plain(value)))
  }

  [inspect.custom](): unknown {
    return this.toObject()
  }
}

/** What toObject() gives, and what `new` takes. */
export type PlainOf<F extends Fields> = { -readonly [K in keyof F]: F[K] extends StructType<infer G> ? PlainOf<G> : ValueOf<F[K]> }
/** Some fields by name; of a nested structure, too. */
export type Some<F extends Fields> = { -readonly [K in keyof F]?: F[K] extends StructType<infer G> ? Some<G> : ValueOf<F[K]> }

/** The class made from a schema: `new` gives a zeroed structure with some fields set, or a copy; `over` reads one that lies in memory already. */
export interface StructType<F extends Fields> extends Field<StructInstance<F>> {
  readonly structName: string
  readonly fields: F
  readonly offsets: { readonly [K in keyof F]: number }
  new (values?: Some<F>): StructInstance<F>
  over(memory: Uint8Array): StructInstance<F>
  /** Writes fields by name, none unless all fit. */
  assign(target: StructInstance<F>, name: string, values: Some<F>): void
}

/** The instance type of a schema: `type Registers = StructOf<typeof Registers>`. */
export type StructOf<S> = S extends StructType<infer F> ? StructInstance<F> : never

const alignUp = (value: number, alignment: number) => Math.ceil(value / alignment) * alignment

function layOut(fields: Fields) {
  const offsets: Record<string, number> = {}
  let end = 0
  let alignment = 1
  for (const [name, field] of Object.entries(fields)) {
    const offset = alignUp(end, field.alignment)
    offsets[name] = offset
    end = offset + field.size
    alignment = Math.max(alignment, field.alignment)
  }
  return { offsets, alignment, size: alignUp(end, alignment) }
}

/** The fields of a plain object, each read once and checked. */
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
  const advice = key === 'bytes' ? 'a spread of a structure has not its fields: spread its toObject()' : `there are ${Object.keys(fields).join(', ')}`
  return new KvmError('argument', `${name} has no field '${visible(key)}'; ${advice}`, { argument: `${name}.${key}` })
}

/** Of a structure: all bytes of an instance, or some fields. */
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
// The same for registers, with code of its own: V8 compiles a direct access only where one place sees one type.
const registerAccessor = (_: unknown, offset: number, name: string): PropertyDescriptor & ThisType<Viewed> => ({
  get() {
    return this.view.getBigUint64(offset, true)
  },
  set(value: bigint) {
    if (!is64(value)) throw no64(name, value)
    this.view.setBigUint64(offset, value, true)
  }
})

/**
 * Describes a C structure by natural alignment, as the System V ABI lays it out on x86-64.
 * @param structName the C name, which the layout test hands to the compiler: `kvm_regs`
 */
export function struct<F extends Fields>(structName: string, fields: F): StructType<F> {
  const { offsets, alignment, size } = layOut(fields)
  class Structure extends Struct {
    static readonly structName = structName
    static readonly fields = fields
    static readonly offsets = offsets
    static readonly alignment = alignment
    static readonly size = size

    constructor(values?: unknown) {
      super(new Uint8Array(size))
      if (values !== undefined) Structure.assign(this, structName, values)
    }

    static assign(target: Structure, name: string, values: unknown) {
      Structure.set(target.view, 0, Structure.check(name, values))
    }
    // By the base's constructor alone: this memory is not copied.
    static over(memory: Uint8Array): Structure {
      if (checkBytes('memory', memory).byteLength < size) throw argumentError('memory', memory.byteLength, `the ${size} bytes of ${structName}`)
      return Reflect.construct(Struct, [memory.subarray(0, size)], Structure)
    }
    static get(view: DataView, offset: number): Structure {
      return Structure.over(new Uint8Array(view.buffer, view.byteOffset + offset, size))
    }
    static check(name: string, value: unknown): Checked {
      return value instanceof Structure ? copyBytes(`${name}.bytes`, value.bytes, size) : checkFields(fields, name, value)
    }
    static set(view: DataView, offset: number, value: Checked) {
      if (value instanceof Uint8Array) new Uint8Array(view.buffer, view.byteOffset + offset, size).set(value)
      else for (const [key, part] of value) fields[key]?.set(view, offset + (offsets[key] as number), part)
    }
  }
  for (const [name, field] of Object.entries(fields))
    Object.defineProperty(
      Structure.prototype,
      name,
      (field === u64 ? registerAccessor : accessor)(field, offsets[name] as number, `${structName}.${name}`)
    )
  return Structure as unknown as StructType<F>
}

/** A new structure with some fields set, which errors call by the caller's name for it: `entries[3]`. */
export function entryOf<F extends Fields>(type: StructType<F>, name: string, values: Some<F>): StructInstance<F> {
  const entry = new type()
  type.assign(entry, name, values)
  return entry
}
