import { readdirSync, readFileSync } from 'node:fs'
import { capabilities, KiB, KvmError, Mapping, MiB } from 'node-kvm'
import { hostVms } from 'node-kvm/observe'
import { assemble } from 'node-kvm/testing'
import ts from 'typescript'
import { expect, test } from 'vitest'
import { everything } from '../support/doors.js'
import { skip, withoutGuestMemfd } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

/** The examples of the doc comments, and the README's programs: people copy them, so they must run. */
function examples(): [name: string, source: string][] {
  const found: [string, string][] = []
  for (const path of readdirSync('lib', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort())
    for (const [, block] of readFileSync(`lib/${path}`, 'utf8').matchAll(/ \* @example\n((?: \* .*\n)+)/g))
      found.push([path, block!.replaceAll(/^ \* /gm, '').replace(/^@(?!example).*$/gms, '')])
  for (const [, block] of readFileSync('README.md', 'utf8').matchAll(/```ts\n(.*?)```/gs))
    found.push(['README.md', block!.replaceAll(/^import .*$/gm, '')])
  return found
}

/** The names that an example may use without making them. */
function context(): Record<string, unknown> {
  const code = assemble('hlt', { mode: 'real', at: 0x1000 })
  const ram = Mapping.anonymous(64 * KiB)
  ram.write(0x1000, code)
  return {
    ...everything,
    // The VMs of other tests may end at any moment, and their tables with them.
    hostVms: () => hostVms({ pid: process.pid }),
    kvm,
    vm,
    code,
    mapping: Mapping.anonymous(2 * MiB),
    page: Mapping.anonymous(4 * KiB),
    otherPage: Mapping.anonymous(4 * KiB),
    serial: { write: () => {} },
    bus: { handle: () => {} },
    controller: new AbortController(),
    port: new MessageChannel().port1,
    get token() {
      return vm.share()
    },
    get vcpu() {
      vm.memslots.create({ gpa: 0, mapping: ram })
      return vm.createVcpu().enter('real', { ip: 0x1000 })
    }
  }
}

async function run(source: string, names: Record<string, unknown>): Promise<void> {
  const used = Object.keys(names).filter((name) => new RegExp(`\\b${name}\\b`).test(source))
  const code = `async function example({ ${used.join(', ')} }) {{\n${source}\n}}`
  const { outputText } = ts.transpileModule(code, { compilerOptions: { target: ts.ScriptTarget.ES2022 } })
  await new Function(`${outputText}; return example`)()(names)
}

const all = examples()
test('there are examples to run', () => {
  expect(all.length).toBeGreaterThan(12)
})

for (const [name, source] of all)
  test(`an example of ${name} runs`, async (task) => {
    if (source.includes('createGuestMemfd') && vm.capabilities.check(capabilities.GUEST_MEMFD) === 0) skip(task, withoutGuestMemfd)
    try {
      await run(source, context())
    } catch (error) {
      // Some examples trace, or read other VMs, which most users may not do.
      if (error instanceof KvmError && ['permission', 'unavailable'].includes(error.code) && process.getuid?.() !== 0) skip(task, error.message)
      throw error
    }
  })
