/** Every place of a generated structure where a value stands, down to the parts of its parts. */
import { address, type Field, type Fields, i8, i16, i32, i64, u8, u16, u32, u64 } from '../../lib/abi/fields.js'
import * as structures from '../../lib/abi/generated/structures.js'
import { Struct, type StructType } from '../../lib/abi/struct.js'

export type Schema = StructType<Fields>
export const schemas = Object.values(structures) as unknown as Schema[]
/** A structure whose fields are asked for by name. */
export type Loose = Struct & Record<string, any>

const borders = new Map<Field<any>, readonly [least: number | bigint, most: number | bigint]>([
  [u8, [0, 0xff]],
  [u16, [0, 0xffff]],
  [u32, [0, 0xffff_ffff]],
  [i8, [-0x80, 0x7f]],
  [i16, [-0x8000, 0x7fff]],
  [i32, [-0x8000_0000, 0x7fff_ffff]],
  [address, [0, Number.MAX_SAFE_INTEGER]],
  [u64, [0n, 2n ** 64n - 1n]],
  [i64, [-(2n ** 63n), 2n ** 63n - 1n]]
])

/** The least and the greatest value of a number's field; undefined for what holds no number. */
export function bordersOf(field: Field<any>): readonly [least: number | bigint, most: number | bigint] | undefined {
  return 'width' in field ? [0, 2 ** (field.width as number) - 1] : borders.get(field)
}

export const isStructure = (field: unknown): field is Schema => typeof field === 'function' && Object.prototype.isPrototypeOf.call(Struct, field)
export const isArray = (field: Field<any>): field is Field<unknown[]> & { element: Field<any> } => 'element' in field

/** Where a value stands: `['cs', 'limit']`, `['fpr', 3]`. */
export type Path = readonly (string | number)[]
export interface Place {
  schema: Schema
  path: Path
  field: Field<any>
  /** Bytes from the structure's start. */
  offset: number
}

/** Every field, and of arrays the first element and the last one, in turn with what they consist of. */
export function placesOf(schema: Schema): Place[] {
  const within = (field: Field<any>, path: Path, offset: number): Place[] => [{ schema, path, field, offset }, ...partsOf(field, path, offset)]
  const partsOf = (field: Field<any>, path: Path, offset: number): Place[] => {
    if (isStructure(field))
      return Object.entries(field.fields).flatMap(([name, part]) => within(part, [...path, name], offset + (field.offsets[name] as number)))
    if (!isArray(field)) return []
    const { element, size } = field
    const last = size / element.size - 1
    return [...new Set([0, last])].flatMap((index) => within(element, [...path, index], offset + index * element.size))
  }
  return partsOf(schema, [], 0)
}

/** As errors call it: `kvm_sregs.cs.limit`. */
export const nameOf = ({ schema, path }: Place): string =>
  path.reduce<string>((name, part) => (typeof part === 'number' ? `${name}[${part}]` : `${name}.${part}`), schema.structName)

/** A plain object for `new` with that one value; arrays on the way get their other elements from a structure of zeros. */
export function objectWith({ schema, path }: Place, value: unknown): any {
  const from = (at: any, [part, ...rest]: Path): unknown => {
    if (part === undefined) return value
    const inner = from(at[part], rest)
    if (typeof part === 'string') return { [part]: inner }
    const elements = at.map((element: unknown) => (element instanceof Struct ? element.toObject() : element))
    elements[part] = inner
    return elements
  }
  return from(new schema(), path)
}

/** The value there. */
export const valueAt = (structure: Struct, path: Path): any => path.reduce<any>((at, part) => at[part], structure)

/** Writes one value in place: of an array of numbers the array whole, as it is no window. */
export function putAt(structure: Struct, path: Path, value: unknown): void {
  const [part, ...rest] = path as [string, ...Path]
  const at = structure as Loose
  if (rest.length === 0) {
    at[part] = value
    return
  }
  const inner = at[part]
  const [index, ...deeper] = rest as [number, ...Path]
  if (!Array.isArray(inner)) putAt(inner, rest, value)
  else if (deeper.length > 0) putAt(inner[index], deeper, value)
  else at[part] = inner.with(index, value)
}
