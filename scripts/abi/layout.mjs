// Structures as the debug information describes them, in terms that the writers of TypeScript and C++ share.

const anonymous = '(anon)'

/**
 * @typedef {{ kind: 'integer', size: number, signed: boolean, character: boolean } | { kind: 'pointer' } | { kind: 'array', of: Type, length: number }
 *   | { kind: 'record', union: boolean, name: string | null, size: number, members: Member[] }} Type
 * @typedef {{ name: string | null, offset: number, type: Type, bits?: { low: number, width: number } }} Member offsets are in bytes
 */

/** Reads the types of one compilation. */
export class Types {
  #byId
  #made = new Map()

  constructor(types) {
    this.#byId = new Map(types.map((type) => [type.id, type]))
  }

  /** The named structures and unions, by their C names. */
  records(isWanted) {
    const wanted = [...this.#byId.values()].filter(({ kind, name }) => (kind === 'STRUCT' || kind === 'UNION') && isWanted(name))
    return wanted.map(({ id }) => this.#type(id))
  }

  enumerators() {
    return [...this.#byId.values()].flatMap(({ kind, name, values }) => (kind === 'ENUM' ? values.map((value) => ({ ...value, of: name })) : []))
  }

  #type(id) {
    const made = this.#made.get(id)
    if (made) return made
    const type = this.#make(this.#byId.get(id))
    this.#made.set(id, type)
    return type
  }

  #make(type) {
    switch (type.kind) {
      case 'TYPEDEF':
      case 'CONST':
      case 'VOLATILE':
        return this.#type(type.type_id)
      case 'INT':
        return { kind: 'integer', size: type.size, signed: type.encoding === 'SIGNED', character: type.name.endsWith('char') }
      case 'ENUM':
        return { kind: 'integer', size: type.size, signed: false, character: false }
      case 'PTR':
        return { kind: 'pointer' }
      case 'ARRAY':
        return { kind: 'array', of: this.#type(type.type_id), length: type.nr_elems }
      case 'STRUCT':
      case 'UNION':
        return this.#record(type)
      default:
        throw new Error(`this generator cannot translate a ${type.kind}, which no structure of KVM has held so far`)
    }
  }

  #record({ kind, name, size, members }) {
    return {
      kind: 'record',
      union: kind === 'UNION',
      name: name === anonymous ? null : name,
      size,
      members: members.map((member) => this.#member(member))
    }
  }

  #member({ name, type_id, bits_offset, bitfield_size }) {
    const common = { name: name === anonymous ? null : name, offset: Math.floor(bits_offset / 8), type: this.#type(type_id) }
    if (!bitfield_size) return common
    return { ...common, bits: { low: bits_offset % 8, width: bitfield_size } }
  }
}

const isEmpty = (type) => type.kind === 'record' && type.members.length === 0

/** Whether the type ends a structure without counting for its size: an array without a length, or a union of such arrays. */
export const isFlexible = (type) =>
  type.kind === 'array' ? type.length === 0 : type.kind === 'record' && type.size === 0 && type.members.some((member) => isFlexible(member.type))

/** The members as C names them: members of anonymous parts count as members of the structure around them. Empty ones are left out. */
export function namedMembers(record, start = 0) {
  return record.members.flatMap((member) => {
    const offset = start + member.offset
    if (member.name === null) return namedMembers(member.type, offset)
    return isEmpty(member.type) ? [] : [{ ...member, offset }]
  })
}

/** The fields of a structure. */
export const fieldsOf = (record) => namedMembers(record).filter(({ type }) => !isFlexible(type))

/** The arrays behind a structure, by name, with the type of their elements. */
export function flexiblePartsOf(record) {
  return namedMembers(record)
    .filter(({ type }) => isFlexible(type))
    .flatMap(({ name, type }) =>
      type.kind === 'array' ? [{ name, of: type.of }] : namedMembers(type).map((part) => ({ name: part.name, of: part.type.of }))
    )
}

/** Orders structures after those that they contain, and otherwise by name, so that the order does not depend on the compiler. */
export function inOrderOfUse(records) {
  const ordered = new Set()
  const visit = (type) => {
    if (type.kind === 'array') visit(type.of)
    if (type.kind !== 'record') return
    for (const member of type.members) visit(member.type)
    if (type.name !== null) ordered.add(type)
  }
  for (const record of [...records].sort((one, other) => (one.name < other.name ? -1 : 1))) visit(record)
  return [...ordered]
}
