import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, type TestContext, test } from 'vitest'
import type { Ioctl } from '../../lib/abi/requests.js'
import * as requests from '../../lib/abi/requests.js'
import type { Fields, StructType } from '../../lib/abi/struct.js'
import * as structures from '../../lib/abi/structures.js'
import { skip } from '../support/skip.js'

const schemas = Object.values(structures) as unknown as StructType<Fields>[]
const all = Object.values(requests).filter((value): value is Ioctl => typeof value === 'object' && 'number' in value)
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-abi-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What a header older than the request lacks, as api.rst gives it; the compiler still lays it out. */
const newer = `
#ifndef KVM_SET_USER_MEMORY_REGION2
struct kvm_userspace_memory_region2 {
  __u32 slot; __u32 flags; __u64 guest_phys_addr; __u64 memory_size; __u64 userspace_addr;
  __u64 guest_memfd_offset; __u32 guest_memfd; __u32 pad1; __u64 pad2[14];
};
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
struct kvm_create_guest_memfd { __u64 size; __u64 flags; __u64 reserved[6]; };
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif`

/** Prints what the C compiler makes of every schema and every request that its header knows. */
function program(): string {
  const structs = schemas.flatMap(({ structName, fields }) => [
    `printf("%s sizeof %zu\\n", "${structName}", sizeof(struct ${structName}));`,
    ...Object.keys(fields).map((field) => `printf("%s ${field} %zu\\n", "${structName}", offsetof(struct ${structName}, ${field}));`)
  ])
  const numbers = all.map(({ name }) => `#ifdef ${name}\nprintf("${name} number %lu\\n", (unsigned long)${name});\n#endif`)
  return `#include <linux/kvm.h>\n#include <stddef.h>\n#include <stdio.h>\n${newer}\nint main(void) {\n${[...structs, ...numbers].join('\n')}\nreturn 0; }\n`
}

function compile(): Map<string, number> {
  const path = join(folder, 'abi')
  const compiled = spawnSync('gcc', ['-x', 'c', '-', '-o', path], { input: program(), encoding: 'utf8' })
  if (compiled.status !== 0) throw new Error(compiled.stderr)
  const { stdout } = spawnSync(path, { encoding: 'utf8' })
  return new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))])
  )
}
const compiled = compile()
const truthOf = (context: TestContext) =>
  compiled ?? skip(context, "the lab's guest has no C compiler; how structures lie does not depend on the lane")

test.for(schemas.map((schema) => [schema.structName, schema] as const))('struct %s lies as the C compiler lays it', ([name, schema], context) => {
  const truth = truthOf(context)
  expect(schema.size).toBe(truth.get(`${name} sizeof`))
  expect(schema.offsets).toEqual(Object.fromEntries(Object.keys(schema.fields).map((field) => [field, truth.get(`${name} ${field}`)])))
})

test.for(all.map((request) => [request.name, request] as const))('%s has the number of the C macro', ([name, request], context) => {
  const truth = truthOf(context)
  expect(request.number).toBe(truth.get(`${name} number`))
})
