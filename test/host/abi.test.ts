import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, type TestContext, test } from 'vitest'
import type { Field, Fields } from '../../lib/abi/fields.js'
import { capabilities } from '../../lib/abi/generated/capabilities.js'
import * as constants from '../../lib/abi/generated/constants.js'
import { exitReasons } from '../../lib/abi/generated/exits.js'
import { cpuidFeatures, msrs, processorExits } from '../../lib/abi/generated/names.js'
import * as requests from '../../lib/abi/generated/requests.js'
import * as structures from '../../lib/abi/generated/structures.js'
import type { Ioctl } from '../../lib/abi/ioctl.js'
import { Struct, type StructType } from '../../lib/abi/struct.js'
import { skip } from '../support/skip.js'

const schemas = Object.values(structures) as unknown as StructType<Fields>[]
const all = Object.values(requests) as Ioctl[]
const prefixed = (prefix: string, values: object) => Object.entries(values).map(([name, value]) => [`${prefix}${name}`, value] as const)
/** Every other number by its C name. */
const numbers = new Map<string, number | bigint>([
  ...prefixed('KVM_CAP_', capabilities),
  ...prefixed('KVM_EXIT_', exitReasons),
  ...prefixed('', constants),
  ...prefixed('', processorExits)
])
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-abi-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Place {
  schema: StructType<Fields>
  /** The path as C writes it: `redirtbl[0].fields.vector`. */
  path: string
  field: Field<unknown>
  offset: number
  /** A bit field has no offset in C. */
  isBits: boolean
}

/** Every field of a structure, including the fields of its parts, and those in the first element of arrays. */
function places(schema: StructType<Fields>, part = schema, prefix = '', start = 0): Place[] {
  return Object.entries(part.fields).flatMap(([name, field]) => {
    const offset = start + (part.offsets[name] as number)
    const path = `${prefix}${name}`
    const place = { schema, path, field, offset, isBits: 'width' in field }
    const isArray = 'element' in field
    const inner = (isArray ? field.element : field) as StructType<Fields>
    const isPart = typeof inner === 'function' && Object.prototype.isPrototypeOf.call(Struct, inner)
    return isPart ? [place, ...places(schema, inner, `${path}${isArray ? '[0]' : ''}.`, offset)] : [place]
  })
}

const fields = schemas.flatMap((schema) => places(schema))

/** A program that prints the C compiler's values for `names`. It shows the place of a bit field by the bytes, with all bits of the field set. */
function program(names: { structs: string[]; fields: Place[]; requests: string[]; numbers: string[] }): string[] {
  return [
    ...['linux/kvm.h', 'linux/mman.h', 'linux/capability.h', 'asm/vmx.h', 'asm/svm.h'].map((name) => `#include <${name}>`),
    '#include <stddef.h>',
    '#include <stdio.h>',
    '#include <string.h>',
    'static void print(const unsigned char *bytes, unsigned long size) { while (size--) printf("%02x", *bytes++); printf("\\n"); }',
    'int main(void) {',
    ...names.structs.map((name) => `printf("sizeof ${name} %zu\\n", sizeof(struct ${name}));`),
    ...names.fields.map(({ schema: { structName }, path, isBits }) =>
      isBits
        ? `{ struct ${structName} value; memset(&value, 0, sizeof value); value.${path} = ~0; printf("${structName}.${path} "); print((void *)&value, sizeof value); }`
        : `printf("${structName}.${path} %zu %zu\\n", offsetof(struct ${structName}, ${path}), sizeof(((struct ${structName} *)0)->${path}));`
    ),
    ...names.numbers.map((name) => `printf("number ${name} %llu\\n", (unsigned long long)(${name}));`),
    ...names.requests.map((name) => `printf("number ${name} %lu\\n", (unsigned long)${name});`),
    'return 0; }',
    ''
  ]
}

/** The compiler's answers about everything that its header knows. If it refuses a line, its header lacks what the line is about. */
function compile(): { truth: Map<string, string>; lacking: number } | null {
  const path = join(folder, 'abi')
  let lines = program({
    structs: schemas.map(({ structName }) => structName),
    fields,
    requests: all.map(({ name }) => name),
    numbers: [...numbers.keys()]
  })
  const build = () =>
    spawnSync('gcc', ['-w', '-fno-diagnostics-show-caret', '-x', 'c', '-', '-o', path], { input: lines.join('\n'), encoding: 'utf8' })
  let compiled = build()
  if (compiled.error) return null
  const refused = new Set([...compiled.stderr.matchAll(/<stdin>:(\d+):.* error: /g)].map(([, line]) => Number(line) - 1))
  lines = lines.map((line, index) => (refused.has(index) ? '' : line))
  if (refused.size > 0) compiled = build()
  if (compiled.status !== 0) throw new Error(compiled.stderr)
  const { stdout } = spawnSync(path, { encoding: 'utf8' })
  const words = stdout
    .trim()
    .split('\n')
    .map((line) => /^((?:sizeof |number )?\S+) (.*)$/.exec(line) as unknown as [string, string, string])
  return { truth: new Map(words.map(([, name, told]) => [name, told])), lacking: refused.size }
}
const compiled = compile()
const truthOf = (context: TestContext) =>
  compiled ?? skip(context, "the lab's guest has no C compiler; how structures lie does not depend on the lane")
const olderHeader = "this host's <linux/kvm.h> is older"

test('the header of this host knows most of the ABI', (context) => {
  const { truth, lacking } = truthOf(context)
  const known = schemas.filter(({ structName }) => truth.has(`sizeof ${structName}`)).length
  const numbered = all.filter(({ name }) => truth.has(`number ${name}`)).length
  // Linux 6.1, the oldest release on which the suite runs, has this many.
  expect(known).toBeGreaterThanOrEqual(85)
  expect(numbered).toBeGreaterThanOrEqual(100)
  context.annotate(
    `${schemas.length - known} structures, ${all.length - numbered} requests and ${lacking} lines in all are unknown to ${olderHeader}`
  )
})

/** Checks a size. A structure with fields that an older header lacks may have grown by them. */
function expectSize(truth: Map<string, string>, name: string, size: number, told: string | undefined) {
  const hasGrown = fields.some(
    ({ schema, path }) => `${schema.structName}.${path}`.startsWith(`${name}.`) && !truth.has(`${schema.structName}.${path}`)
  )
  if (hasGrown) expect(size, name).toBeGreaterThanOrEqual(Number(told))
  else expect(`${size}`, name).toBe(told)
}

test.for(schemas.map((schema) => [schema.structName, schema] as const))('struct %s lies as the C compiler lays it', ([name, schema], context) => {
  const { truth } = truthOf(context)
  if (!truth.has(`sizeof ${name}`)) return skip(context, `${olderHeader}: it has no struct ${name}`)
  expectSize(truth, name, schema.size, truth.get(`sizeof ${name}`))
  for (const place of fields.filter((one) => one.schema === schema)) {
    const path = `${name}.${place.path}`
    const told = truth.get(path)
    if (told === undefined) context.annotate(`${olderHeader}: it has no ${path}`)
    else if (place.isBits) expect(bytesOf(place), path).toBe(told)
    else {
      const [offset, size] = told.split(' ')
      expect(`${place.offset}`, path).toBe(offset)
      expectSize(truth, path, place.field.size, size)
    }
  }
})

/** A structure with all bits of one field set, in hexadecimal. */
function bytesOf({ schema, field, offset }: Place): string {
  const memory = new Uint8Array(schema.size)
  const view = new DataView(memory.buffer)
  field.set(view, offset, field.get(new DataView(new Uint8Array(field.size).fill(0xff).buffer), 0))
  return Buffer.from(memory).toString('hex')
}

test.for(all.map((request) => [request.name, request] as const))('%s has the number of the C macro', ([name, request], context) => {
  const { truth } = truthOf(context)
  const number = truth.get(`number ${name}`)
  if (number === undefined) return skip(context, `${olderHeader}: it has no ${name}`)
  expect(`${request.number}`).toBe(number)
  expect(request.size).toBe((request.number >>> 16) & 0x3fff)
})

/** The last number of a list grows with the list, and so does the mask of the bits that a release knows. */
const grows = (name: string) => /_(NR_MAX|CMD_NR_MAX|VALID_FIELDS|VALID_MASK|VALID_FLAG_MASK|LAST_CAP|MAX)$/.test(name)

test('capabilities, exit reasons and constants have the values of the C macros', (context) => {
  const { truth } = truthOf(context)
  const known = [...numbers].filter(([name]) => truth.has(`number ${name}`))
  // Linux 6.1 has this many.
  expect(known.length).toBeGreaterThan(700)
  const unsigned = (value: number | bigint) => `${BigInt.asUintN(64, BigInt(value))}`
  expect(Object.fromEntries(known.filter(([name]) => !grows(name)).map(([name, value]) => [name, unsigned(value)]))).toEqual(
    Object.fromEntries(known.filter(([name]) => !grows(name)).map(([name]) => [name, truth.get(`number ${name}`)]))
  )
  context.annotate(`${numbers.size - known.length} of ${numbers.size} numbers are unknown to ${olderHeader}`)
})

test('names of MSRs and of processor features lead where the manuals have them', () => {
  // Intel SDM volume 4, 2.1 and volume 2, CPUID; AMD APM volume 3, appendix E.
  expect(msrs).toMatchObject({ MSR_IA32_TSC: 0x10, MSR_IA32_APICBASE: 0x1b, MSR_EFER: 0xc000_0080, MSR_TSC_AUX: 0xc000_0103, MSR_IA32_XSS: 0xda0 })
  expect(cpuidFeatures).toMatchObject({
    FPU: { function: 1, index: 0, register: 'edx', bit: 0 },
    VMX: { function: 1, index: 0, register: 'ecx', bit: 5 },
    SMEP: { function: 7, index: 0, register: 'ebx', bit: 7 },
    LA57: { function: 7, index: 0, register: 'ecx', bit: 16 },
    AVX_VNNI: { function: 7, index: 1, register: 'eax', bit: 4 },
    XSAVEOPT: { function: 13, index: 1, register: 'eax', bit: 0 },
    NX: { function: 0x8000_0001, index: 0, register: 'edx', bit: 20 },
    SVM: { function: 0x8000_0001, index: 0, register: 'ecx', bit: 2 },
    NPT: { function: 0x8000_000a, index: 0, register: 'edx', bit: 0 }
  })
  for (const { function: leaf, bit } of Object.values(cpuidFeatures)) expect([leaf < 0x20 || leaf >= 0x8000_0000, bit < 32]).toEqual([true, true])
})
