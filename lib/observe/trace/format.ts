/** Reads a tracepoint's fields by its `format` file. They differ between kernels, so nothing about them is known beforehand. */

interface FormatField {
  name: string
  offset: number
  size: number
  signed: boolean
}

/** The format of one tracepoint: its number in samples, and the places of its fields. */
export interface Format {
  /** The name of the tracepoint: `kvmmmu/kvm_mmu_set_spte`. */
  event: string
  id: number
  fields: ReadonlyMap<string, FormatField>
}

/** Reads a field of a record whose raw data begin at `at`. */
export type Read<T> = (view: DataView, at: number) => T

const fieldLine = /field:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d)/g

/** @param text the content of a `format` file */
export function parseFormat(event: string, text: string): Format {
  const fields = new Map<string, FormatField>()
  for (const [, name, offset, size, signed] of text.matchAll(fieldLine))
    fields.set(name!, { name: name!, offset: Number(offset), size: Number(size), signed: signed === '1' })
  return { event, id: Number(/^ID: (\d+)/m.exec(text)?.[1]), fields }
}

const absent: Read<number> = () => 0
const absentWide: Read<bigint> = () => 0n

/**
 * Reads a field as a number, exact below 2^53: for counts, and for guest-physical and host-virtual addresses. {@link wideField} reads values that may
 * use all 64 bits, such as guest-virtual addresses. The value is 0 if this kernel's event lacks the field.
 */
export function numberField({ fields }: Format, name: string): Read<number> {
  const field = fields.get(name)
  if (!field) return absent
  const { offset, size, signed } = field
  if (size === 8) return (view, at) => view.getUint32(at + offset, true) + view.getUint32(at + offset + 4, true) * 2 ** 32
  if (size === 4) return signed ? (view, at) => view.getInt32(at + offset, true) : (view, at) => view.getUint32(at + offset, true)
  if (size === 2) return signed ? (view, at) => view.getInt16(at + offset, true) : (view, at) => view.getUint16(at + offset, true)
  return signed ? (view, at) => view.getInt8(at + offset) : (view, at) => view.getUint8(at + offset)
}

/** Reads the low 32 bits of a field: for flags in a 64-bit value, which a number would round. */
export function lowField(format: Format, name: string): Read<number> {
  const field = format.fields.get(name)
  return field?.size === 8 ? (view, at) => view.getUint32(at + field.offset, true) : numberField(format, name)
}

/** Reads all 64 bits of a field: a guest-virtual address, an SPTE, a qualification. */
export function wideField(format: Format, name: string): Read<bigint> {
  const field = format.fields.get(name)
  if (!field) return absentWide
  if (field.size === 8) return (view, at) => view.getBigUint64(at + field.offset, true)
  const narrow = numberField(format, name)
  return (view, at) => BigInt(narrow(view, at))
}

/** Returns all fields of a record by name: those of 8 bytes always as bigints, smaller ones as numbers. Longer ones are left out. */
export function rawFields(format: Format, view: DataView, at: number): Record<string, number | bigint> {
  const values: Record<string, number | bigint> = {}
  for (const { name, offset, size, signed } of format.fields.values()) {
    if (name.startsWith('common_') || size > 8) continue
    if (size < 8) values[name] = numberField(format, name)(view, at)
    else values[name] = signed ? view.getBigInt64(at + offset, true) : view.getBigUint64(at + offset, true)
  }
  return values
}
