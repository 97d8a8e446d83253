// Writes the generated TypeScript modules.
import { fieldsOf, flexiblePartsOf } from './layout.mjs'
import { addresses } from './meaning.mjs'

export const hex = (value) => `0x${value.toString(16)}`
/** Small numbers are written in decimal, others as headers write them. */
const literal = (value) => (typeof value === 'bigint' ? `${value < 0n ? value : hex(value)}n` : value < 0x100 ? `${value}` : hex(value))
/** A name as a key, which needs quotes if it begins with a digit. */
const key = (name) => (/^\d/.test(name) ? `'${name}'` : name)
const entries = (values, write) => [...values].map(([name, value]) => `  ${key(name)}: ${write(value)}`).join(',\n')

const unsigned = { 1: 'u8', 2: 'u16', 4: 'u32', 8: 'u64' }
const signed = { 1: 'i8', 2: 'i16', 4: 'i32', 8: 'i64' }
const isByte = (type) => type.kind === 'integer' && type.size === 1

/** Expressions of structures and of their fields. The module imports those of lib/abi/fields.ts that it uses. */
class Expressions {
  used = new Set()

  #use(name) {
    this.used.add(name)
    return name
  }

  of(type, path) {
    switch (type.kind) {
      case 'integer':
        return this.#use((type.signed && !type.character ? signed : unsigned)[type.size])
      case 'pointer':
        return this.#use('u64')
      case 'array':
        if (isByte(type.of)) return `${this.#use('bytes')}(${type.length})`
        return `${this.#use('array')}(${this.of(type.of, path)}, ${type.length})`
      default:
        return type.name ?? this.struct(type, path)
    }
  }

  #member(member, path, isAddress) {
    if (isAddress) return this.#use('address')
    if (!member.bits) return this.of(member.type, path)
    const { low, width } = member.bits
    return `${this.#use('bits')}(${Math.ceil((low + width) / 8)}, ${low}, ${width})`
  }

  struct(record, path) {
    const members = fieldsOf(record).map((member) => {
      const expression = this.#member(member, `${path}.${member.name}`, addresses[path]?.includes(member.name))
      return `${member.name}: [${member.offset}, ${expression}]`
    })
    const behind = flexiblePartsOf(record).map(({ name, of }) => `${name}: ${this.of(of, `${path}.${name}`)}`)
    const flexible = behind.length > 0 ? `, () => ({ ${behind.join(', ')} })` : ''
    return `struct('${path}', ${record.size}, () => ({ ${members.join(', ')} })${flexible})`
  }
}

export function structures(records) {
  const expressions = new Expressions()
  const text = records.map((record) => {
    const { name } = record
    return `export const ${name} = ${expressions.struct(record, name)}\nexport type ${name} = StructOf<typeof ${name}>\n`
  })
  const imports = [
    `import { ${[...expressions.used].sort().join(', ')} } from '../fields.js'`,
    `import { struct, type StructOf } from '../struct.js'`
  ]
  return `${imports.join('\n')}\n\n${text.join('\n')}`
}

/** @param requests name, number and, if there is one, the argument's C type */
export const requests = (list) =>
  `import type { Ioctl } from '../ioctl.js'\n\n${list
    .map(({ name, number, size, argument }) => {
      const parts = [`name: '${name}'`, `number: ${hex(number)}`, `size: ${size}`, ...(argument ? [`argument: '${argument}'`] : [])]
      return `export const ${name}: Ioctl = { ${parts.join(', ')} }\n`
    })
    .join('')}`

export const table = (name, about, values, write = literal) => `/** ${about} */\nexport const ${name} = {\n${entries(values, write)}\n} as const\n`

export const constants = (values) => [...values].map(([name, value]) => `export const ${name} = ${literal(value)}\n`).join('')

/** @param features name, function, index, register and bit of each */
export const features = (list) =>
  `/** A bit that CPUID answers with. */
export interface CpuidFeature {
  readonly function: number
  readonly index: number
  readonly register: 'eax' | 'ebx' | 'ecx' | 'edx'
  readonly bit: number
}

/** Processor features by the kernel's names (arch/x86/include/asm/cpufeatures.h). */
export const cpuidFeatures = {
${list.map(({ name, leaf, index, register, bit }) => `  ${key(name)}: { function: ${hex(leaf)}, index: ${index}, register: '${register}', bit: ${bit} }`).join(',\n')}
} as const satisfies Record<string, CpuidFeature>
`
