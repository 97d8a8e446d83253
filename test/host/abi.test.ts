import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, type TestContext, test } from 'vitest'
import * as requests from '../../lib/abi/generated/requests.js'
import * as structures from '../../lib/abi/generated/structures.js'
import type { Ioctl } from '../../lib/abi/ioctl.js'
import { type Field, type Fields, Struct, type StructType } from '../../lib/abi/struct.js'
import { skip } from '../support/skip.js'

const schemas = Object.values(structures) as unknown as StructType<Fields>[]
const all = Object.values(requests) as Ioctl[]
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-abi-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Place {
  schema: StructType<Fields>
  /** As C names it: `redirtbl[0].fields.vector`. */
  path: string
  field: Field<unknown>
  offset: number
  /** A bit field has no offset in C. */
  isBits: boolean
}

/** Every field of a structure, down to those of its parts, in the first element of arrays. */
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

/** Prints what the C compiler makes of `names`. A bit field's place shows in the bytes, with all its bits set. */
function program(names: { structs: string[]; fields: Place[]; requests: string[] }): string[] {
  return [
    '#include <linux/kvm.h>',
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
    ...names.requests.map((name) => `printf("number ${name} %lu\\n", (unsigned long)${name});`),
    'return 0; }',
    ''
  ]
}

/** What the compiler says of everything that its header knows; a line that it refuses is about something that its header lacks. */
function compile(): { truth: Map<string, string>; lacking: number } | null {
  const path = join(folder, 'abi')
  let lines = program({ structs: schemas.map(({ structName }) => structName), fields, requests: all.map(({ name }) => name) })
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

test('the header of this host knows most of it', (context) => {
  const { truth, lacking } = truthOf(context)
  const known = schemas.filter(({ structName }) => truth.has(`sizeof ${structName}`)).length
  const numbered = all.filter(({ name }) => truth.has(`number ${name}`)).length
  // Those of Linux 6.1, the oldest release that the suite runs on.
  expect(known).toBeGreaterThanOrEqual(85)
  expect(numbered).toBeGreaterThanOrEqual(100)
  context.annotate(
    `${schemas.length - known} structures, ${all.length - numbered} requests and ${lacking} lines in all are unknown to ${olderHeader}`
  )
})

/** Checks a size. What has fields that an older header lacks may have grown by them. */
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
