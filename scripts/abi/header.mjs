// Writes the header for native code: the same structures, requests and constants for a C++ compiler. It takes the place of <linux/kvm.h>, whose age
// differs between distributions.
import { fieldsOf, isFlexible, namedMembers } from './layout.mjs'

const integers = { 1: 'uint8_t', 2: 'uint16_t', 4: 'uint32_t', 8: 'uint64_t' }

function declaration(member, indent) {
  const { name, type, bits } = member
  const lengths = []
  let of = type
  for (; of.kind === 'array'; of = of.of) lengths.push(`[${of.length || ''}]`)
  const suffix = `${lengths.join('')}${bits ? ` : ${bits.width}` : ''}`
  return `${indent}${spelling(of, indent)}${name === null ? '' : ` ${name}`}${suffix};`
}

function spelling(type, indent) {
  if (type.kind === 'pointer') return 'void*'
  if (type.kind === 'integer') return `${type.signed && !type.character ? '' : 'u'}${integers[type.size].slice(1)}`
  return type.name ?? `${type.union ? 'union' : 'struct'} {\n${body(type, `${indent}  `)}\n${indent}}`
}

/**
 * An empty structure has no size in C, but one byte in C++. In the kernel's header such a structure only makes room for an array, so here the array
 * stands alone.
 */
const body = (record, indent) =>
  record.members
    .flatMap((member) => (member.name === null && isFlexible(member.type) ? namedMembers(member.type, member.offset) : [member]))
    .filter(({ type }) => type.kind !== 'record' || type.size > 0)
    .map((member) => declaration(member, indent))
    .join('\n')

function structure(record) {
  const checks = fieldsOf(record)
    .filter(({ bits }) => !bits)
    .map(({ name, offset }) => `static_assert(offsetof(${record.name}, ${name}) == ${offset});`)
  return `struct ${record.name} {\n${body(record, '  ')}\n};\nstatic_assert(sizeof(${record.name}) == ${record.size});\n${checks.join('\n')}\n`
}

function constant([name, value]) {
  const type = value < 0 ? 'int64_t' : value > 0xffff_ffff ? 'uint64_t' : value > 0x7fff_ffff ? 'uint32_t' : 'int'
  const text = value < 0 ? `${value}` : `0x${value.toString(16)}${type === 'uint64_t' ? 'ull' : ''}`
  return `inline constexpr ${type} ${name} = ${text};`
}

/** Constants are named as this code names them: in another header they may be macros. */
const constantName = (name) => `k${name.toLowerCase().replaceAll(/(?:^|_)(\w)/g, (_, letter) => letter.toUpperCase())}`

/** The constants that native code takes from other headers. */
export const additions = (records, constants) => `// clang-format off
#pragma once

#include <cstddef>
#include <cstdint>

namespace node_kvm {

${records.map(structure).join('\n')}
${[...constants].map(([name, value]) => constant([constantName(name), value])).join('\n')}

}  // namespace node_kvm
`

/** @param constants names and values of everything but requests */
export const header = (records, requests, constants) => `// clang-format off
#pragma once

#ifdef __LINUX_KVM_H
#error "kvm_abi.h takes the place of <linux/kvm.h>"
#endif

#include <cstddef>
#include <cstdint>

${records.map(structure).join('\n')}
${requests.map(({ name, number }) => `inline constexpr unsigned long ${name} = 0x${number.toString(16)};`).join('\n')}

${[...constants].map(constant).join('\n')}
`
