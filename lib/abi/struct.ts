/**
 * One schema per KVM structure. The generated list of fields describes the C layout; the schema turns it into accessors and a TypeScript type.
 * The instance *is* the bytes that go to the ioctl, so reading one register decodes one register.
 */
import { inspect } from 'node:util'
import { argumentError, bytesWithin, checkBits, checkInteger, copyBytes, hasNames } from './arguments.js'
import { KvmError } from './errors.js'
import { type ArrayOf, type Field, type Fields, u64, type ValueOf, type ValuesOf } from './fields.js'
import { hex, visible } from './text.js'

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
  /** Lays an instance over memory, which must be as large at least, and in a buffer that cannot be resized. */
  over(memory: Uint8Array): StructInstance<F>
  /** Writes fields by name. If one value does not fit, nothing is written. */
  assign(target: StructInstance<F>, name: string, values: Some<F>): void
}

/** The instance type of a schema: `type Registers = StructOf<typeof Registers>`. */
export type StructOf<S> = S extends StructType<infer F> ? StructInstance<F> : never

/** Checks the fields of a plain object and reads each of them once. */
function checkFields(fields: Fields, name: string, values: unknown): Map<string, unknown> {
  if (!hasNames(values)) throw argumentError(name, values, `an object with ${Object.keys(fields).join(', ')}`)
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

type CheckedValues = Uint8Array | ReadonlyMap<string, unknown>
/** A checked value for a structure: all bytes of an instance, or some fields. Only check() makes one, so that set() never writes what does not fit. */
class Checked {
  readonly #schema: unknown
  readonly #values: CheckedValues

  constructor(schema: unknown, values: CheckedValues) {
    this.#schema = schema
    this.#values = values
  }

  static valuesOf(value: unknown, schema: { structName: string }): CheckedValues {
    if (typeof value !== 'object' || value === null || !(#schema in value) || value.#schema !== schema)
      throw argumentError('value', value, `what check() of ${schema.structName} returned`)
    return value.#values
  }
}

/** The bytes of a view in which a structure lies. */
function windowOn(view: DataView, offset: number, size: number): Uint8Array {
  try {
    if (offset + size <= view.byteLength) return new Uint8Array(view.buffer, view.byteOffset + offset, size)
  } catch {
    // This is no view, or a view of memory that was transferred away.
  }
  throw argumentError('view', view, `a DataView of at least ${size} bytes behind the offset`)
}

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
  // Calls only the base constructor, which does not copy the memory.
  const inPlace = (memory: Uint8Array): Structure => {
    if (!isUsable) makeUsable()
    return Reflect.construct(Struct, [memory], Structure)
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
      if (!(target instanceof Structure)) throw argumentError('target', target, `an instance for ${structName}`)
      Structure.set(target.view, 0, Structure.check(name, values))
    }
    static over(memory: Uint8Array): Structure {
      return inPlace(bytesWithin('memory', memory, size))
    }
    static get(view: DataView, offset: number): Structure {
      return inPlace(windowOn(view, checkInteger('offset', offset), size))
    }
    static check(name: string, value: unknown): Checked {
      if (typeof name !== 'string') throw argumentError('name', name, 'a string')
      if (value instanceof Structure) return new Checked(Structure, copyBytes(`${name}.bytes`, value.bytes, size))
      const checked = checkFields(layout().fields, name, value)
      if (layout().sharesMemory) checkAgreement(Structure, name, checked)
      return new Checked(Structure, checked)
    }
    static set(view: DataView, offset: number, value: Checked) {
      const values = Checked.valuesOf(value, Structure)
      const window = windowOn(view, checkInteger('offset', offset), size)
      if (values instanceof Uint8Array) return window.set(values)
      const { fields, offsets } = layout()
      for (const [key, part] of values) fields[key]?.set(view, offset + (offsets[key] as number), part)
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
