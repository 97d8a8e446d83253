/**
 * One schema per KVM structure: from the field list follow the offsets and size of the C layout, the accessors, and the
 * TypeScript type. The instance *is* the bytes that go to the ioctl, so reading one register decodes one register.
 */
import { inspect } from 'node:util'

/** How one field lies in memory, and how it is read and written. */
export interface Field<T> {
  readonly size: number
  readonly alignment: number
  get(view: DataView, offset: number): T
  set(view: DataView, offset: number, value: T): void
}

function scalar<T>(size: number, get: (view: DataView, offset: number) => T, set: (view: DataView, offset: number, value: T) => void): Field<T> {
  return { size, alignment: size, get, set }
}

export const u8 = scalar<number>(
  1,
  (v, o) => v.getUint8(o),
  (v, o, x) => v.setUint8(o, x)
)
export const u16 = scalar<number>(
  2,
  (v, o) => v.getUint16(o, true),
  (v, o, x) => v.setUint16(o, x, true)
)
export const u32 = scalar<number>(
  4,
  (v, o) => v.getUint32(o, true),
  (v, o, x) => v.setUint32(o, x, true)
)
export const i32 = scalar<number>(
  4,
  (v, o) => v.getInt32(o, true),
  (v, o, x) => v.setInt32(o, x, true)
)
/** All 64 bits count: registers, MSRs, SPTEs. */
export const u64 = scalar<bigint>(
  8,
  (v, o) => v.getBigUint64(o, true),
  (v, o, x) => v.setBigUint64(o, x, true)
)
/** A 64-bit address or size below 2^53, as a number. */
export const address = scalar<number>(
  8,
  (v, o) => v.getUint32(o, true) + v.getUint32(o + 4, true) * 2 ** 32,
  (v, o, x) => {
    v.setUint32(o, x % 2 ** 32, true)
    v.setUint32(o + 4, Math.floor(x / 2 ** 32), true)
  }
)

/** A run of bytes, read in place: the Uint8Array is a window on the structure. */
export function bytes(length: number): Field<Uint8Array> {
  return {
    size: length,
    alignment: 1,
    get: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, length),
    set: (view, offset, value) => new Uint8Array(view.buffer, view.byteOffset + offset, length).set(value)
  }
}

/** `length` equal fields; read as a copy, written whole. */
export function array<T>(element: Field<T>, length: number): Field<T[]> {
  return {
    size: element.size * length,
    alignment: element.alignment,
    get: (view, offset) => Array.from({ length }, (_, index) => element.get(view, offset + index * element.size)),
    set: (view, offset, value) => value.slice(0, length).forEach((item, index) => element.set(view, offset + index * element.size, item))
  }
}

export type Fields = Record<string, Field<any>>
type ValueOf<F> = F extends Field<infer T> ? T : never
export type ValuesOf<F extends Fields> = { -readonly [K in keyof F]: ValueOf<F[K]> }
export type StructInstance<F extends Fields> = Struct & ValuesOf<F>

/** The memory of one KVM structure. */
export class Struct {
  /** The bytes given to the kernel. */
  readonly bytes: Uint8Array
  protected readonly view: DataView

  constructor(memory: Uint8Array) {
    this.bytes = memory
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength)
  }

  /** The fields as a plain object, copied. */
  toJSON(): Record<string, unknown> {
    const { fields } = this.constructor as unknown as StructType<Fields>
    return Object.fromEntries(Object.keys(fields).map((name) => [name, (this as unknown as Record<string, unknown>)[name]]))
  }

  [inspect.custom](): unknown {
    return this.toJSON()
  }
}

/** The class made from a schema: `new` gives a zeroed structure, `over` reads one that lies in memory already. */
export interface StructType<F extends Fields> extends Field<StructInstance<F>> {
  readonly structName: string
  readonly fields: F
  readonly offsets: { readonly [K in keyof F]: number }
  new (values?: Partial<ValuesOf<F>>): StructInstance<F>
  over(memory: Uint8Array): StructInstance<F>
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

type Viewed = { view: DataView }
const accessor = (field: Field<any>, offset: number): PropertyDescriptor & ThisType<Viewed> => ({
  get() {
    return field.get(this.view, offset)
  },
  set(value: unknown) {
    field.set(this.view, offset, value)
  }
})
// The same for registers, with code of its own: V8 compiles a direct access only where one place sees one type.
const registerAccessor = (_: unknown, offset: number): PropertyDescriptor & ThisType<Viewed> => ({
  get() {
    return this.view.getBigUint64(offset, true)
  },
  set(value: bigint) {
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

    constructor(values?: Partial<ValuesOf<F>> | Uint8Array) {
      super(values instanceof Uint8Array ? values : new Uint8Array(size))
      if (values && !(values instanceof Uint8Array)) Object.assign(this, values)
    }

    static over(memory: Uint8Array) {
      if (memory.byteLength < size) throw new RangeError(`${structName} takes ${size} bytes, these are ${memory.byteLength}`)
      return new Structure(memory.subarray(0, size))
    }
    static get(view: DataView, offset: number) {
      return new Structure(new Uint8Array(view.buffer, view.byteOffset + offset, size))
    }
    static set(view: DataView, offset: number, value: Structure | Partial<ValuesOf<F>>) {
      const target = Structure.get(view, offset)
      if (value instanceof Structure) target.bytes.set(value.bytes)
      else Object.assign(target, value)
    }
  }
  for (const [name, field] of Object.entries(fields))
    Object.defineProperty(Structure.prototype, name, (field === u64 ? registerAccessor : accessor)(field, offsets[name]!))
  return Structure as unknown as StructType<F>
}
