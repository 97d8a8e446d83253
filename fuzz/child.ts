/**
 * A child of the fuzzer: it runs programs, each of which is a line of JSON, and answers each with a line. Its findings are in its log, which outlives
 * it.
 */
import { createInterface } from 'node:readline'
import { plant } from './planted.js'
import { journal, judgeError, report } from './program/attempt.js'
import { held, judgeLeaks } from './program/judge.js'
import { everything, Kvm } from './program/library.js'
import { names } from './program/names.js'

const AsyncFunction = (async () => {}).constructor as new (...text: string[]) => (...given: unknown[]) => Promise<void>

process.on('uncaughtException', (error) => judgeError(error, 'a turn of its own'))

const own = (of: object | undefined) => (of ? Object.getOwnPropertyNames(of) : [])
const inherited = (of: object) => own(Object.getPrototypeOf(of))

/** Names the facets in an object's fields with their methods: `Vm.memslots.create`. */
function facets(name: string, made: object): string[] {
  return Object.entries(made).flatMap(([field, value]) => [
    `${name}.${field}`,
    ...(typeof value === 'object' && value !== null
      ? [...inherited(value), ...inherited(Object.getPrototypeOf(value))].map((member) => `${name}.${field}.${member}`)
      : [])
  ])
}

/** Names the classes, their methods and the functions, so that programs do not ask an older package for methods that it lacks. */
function contents(): string[] {
  const named = Object.entries(everything).flatMap(([name, value]) => {
    if (typeof value !== 'function') return [name]
    const members = [...own(value), ...own(value.prototype), ...(value.prototype ? inherited(value.prototype) : [])]
    return [name, ...members.map((member) => `${name}.${member}`)]
  })
  const kvm = Kvm.open()
  const vm = kvm.createVm()
  const found = [...named, ...facets('Kvm', kvm), ...facets('Vm', vm), ...facets('Vcpu', vm.createVcpu())]
  vm.close()
  kvm.close()
  return found
}

async function perform(program: string): Promise<void> {
  const run = new AsyncFunction(...Object.keys(names), `'use strict'\n${program}`)
  try {
    await run(...Object.values(names))
  } catch (error) {
    report('untyped', `the program itself: ${error instanceof Error ? error.stack : error}`)
  }
}

/** What an environment opens once and keeps is no leak: the program that reads tables, the thread that waits for eventfds. */
const first = `
  const vm = attempt(() => Kvm.open().createVm()), mapping = attempt(() => Mapping.anonymous(65536))
  attempt(() => vm.memslots.create({ gpa: 0, mapping }), vm, mapping)
  const vcpu = attempt(() => vm.createVcpu(), vm)
  run(vcpu, 'halt', 0)
  attempt(() => vcpu.start({}), vcpu)
  const all = [attempt(() => vm.ioeventfd({ port: 1, size: 1 }), vm), attempt(() => trace(vm, { ringSize: 4096 }), vm), vm]
  judgeTable(vm, 'before all')
  await turn()
  await judge([], [], [...all, attempt(() => mapping.onMissing(() => null)), mapping])`

await perform(first)
plant(process.env['NODE_KVM_FUZZ_PLANT'])
process.stdout.write(`${JSON.stringify({ contents: contents() })}\n`)
let before = held()
for await (const line of createInterface({ input: process.stdin })) {
  const calls = journal().calls
  await perform((JSON.parse(line) as { program: string }).program)
  const left = await judgeLeaks(before)
  before = { ...before, ...left }
  process.stdout.write(`${JSON.stringify({ calls: journal().calls - calls, left })}\n`)
}
process.exit(0)
