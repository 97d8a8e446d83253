/**
 * Every method of every class, called with each of its arguments wrong in each way: the error is a KvmError that says what was asked, and the
 * machine is as it was. A method added later fails here until test/support/methods.ts has arguments for it.
 */
import { setMaxListeners } from 'node:events'
import { inspect } from 'node:util'
import { isUint8Array } from 'node:util/types'
import * as core from 'node-kvm'
import { KvmError } from 'node-kvm'
import { expect, test } from 'vitest'
import { Struct } from '../../lib/abi/struct.js'
import { visible } from '../../lib/abi/text.js'
import { closeMachine, type Machine, makeMachine, table } from '../support/methods.js'
import { needsKvm, needsPaging } from '../support/needs.js'
import { skipInLab } from '../support/skip.js'
import { everyKind } from '../support/wrong.js'

setMaxListeners(0)
const wrong = everyKind()

/** Methods that a class defines itself, and its setters with `=`. */
function methodsOf(prototype: object): string[] {
  return Object.entries(Object.getOwnPropertyDescriptors(prototype)).flatMap(([name, { value, set }]) => {
    if (name === 'constructor') return []
    return typeof value === 'function' ? [name] : set ? [`${name}=`] : []
  })
}
const withParents = (type: any): string[] =>
  Object.hasOwn(core, type.name) ? [...methodsOf(type.prototype), ...withParents(Object.getPrototypeOf(type))] : []
const isStructure = (type: any) => type.prototype instanceof Struct
/** Their fields are the test of test/host/input-structures.test.ts; errors and what only has heirs take nothing of a caller. */
const elsewhere = ['KvmError', 'Eventfd', 'longModeTablesSize']
const classes = Object.entries(core as Record<string, any>).filter(
  ([name, type]) => typeof type === 'function' && type.prototype && !isStructure(type) && !elsewhere.includes(name)
)

test('there are arguments for each method of each class', () => {
  const lacking: string[] = []
  for (const [name, type] of classes) {
    const has = (row: string, method: string) => Object.hasOwn(table[row]?.takes ?? {}, method)
    for (const method of new Set(withParents(type))) if (!has(name, method)) lacking.push(`${name}.${method}`)
    for (const method of Object.getOwnPropertyNames(type))
      if (typeof type[method] === 'function' && method !== 'prototype' && !has(`static ${name}`, method)) lacking.push(`static ${name}.${method}`)
    expect(table[name], name).toBeDefined()
  }
  expect(lacking).toEqual([])
})

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** What of a value its type says; of objects, what they are for. */
function kindOf(value: unknown): string {
  if (typeof value !== 'object') return typeof value
  if (value === null) return 'null'
  if (isUint8Array(value)) return 'bytes'
  if (typeof (value as Iterable<unknown>)[Symbol.iterator] === 'function') return 'list'
  return isPlain(value) || Object.keys(value).length === 0 ? 'plain' : 'instance'
}

/**
 * A value with one thing wrong, in it or in what it consists of.
 * @param also kinds that do for this one, too
 */
function* wrongOnes(value: unknown, also: readonly string[]): Generator<{ value: unknown; mayDo: boolean }> {
  // One that is absent does where it is optional, and some of the same kind.
  const kinds = ['undefined', kindOf(value), ...(kindOf(value) === 'list' ? ['bytes'] : []), ...also]
  for (const bad of wrong) yield { value: bad, mayDo: kinds.includes(kindOf(bad)) }
  if (Array.isArray(value)) {
    for (const [index, part] of value.entries()) for (const bad of wrongOnes(part, also)) yield { ...bad, value: value.with(index, bad.value) }
    yield { value: new Array(3), mayDo: false }
    yield { value: [...value, undefined], mayDo: false }
  } else if (isPlain(value)) {
    for (const [name, part] of Object.entries(value))
      for (const bad of wrongOnes(part, also)) yield { ...bad, value: { ...value, [name]: bad.value } }
    const mayDo = also.includes('names')
    yield { value: { ...value, no_such: 1 }, mayDo }
    yield { value: Object.assign(Object.create(null), value, { '\x1b[2J': 1 }), mayDo }
    yield { value: new Proxy(value, {}), mayDo: true }
  }
}

/** What is wrong with an error of a refusal; nothing with one that is as it should be. */
function faultOf(error: unknown, name: string): string | undefined {
  if (!(error instanceof KvmError)) return `${error}`
  const { code, argument, errno, ioctl, message } = error
  if (visible(message) !== message) return `unprintable: ${message}`
  if (code === 'argument') return typeof argument === 'string' && argument !== '' ? undefined : `no argument: ${message}`
  if (code !== 'ioctl') return message.length > 10 ? undefined : `says little: ${message}`
  // MSRs are refused one by one, without an errno.
  if (ioctl === undefined || (errno === undefined && !name.startsWith('VcpuMsrs'))) return `no ioctl or errno: ${message}`
  return message.includes(ioctl) ? undefined : `its ioctl is not told: ${message}`
}

const stateOf = ({ vm, vcpu }: Machine) =>
  JSON.stringify([vm.memslots, vcpu.registers.get(), vcpu.registers.getSpecial(), vcpu.events.getMpState(), [...vm.vcpus.keys()]])

async function undo(result: any, { vm, vcpu, mapping }: Machine): Promise<void> {
  if (result instanceof Promise) {
    await vcpu.stop()
    await result
    return
  }
  if (result === vm || result === vcpu || result === mapping) return
  if (typeof result?.close === 'function') result.close()
  if (typeof result?.delete === 'function' && !(result instanceof Map)) result.delete()
}

const calls = Object.entries(table).flatMap(([name, row]) => Object.keys(row.takes).map((method) => [`${name}.${method}`, row, method] as const))

test.for(calls)('%s refuses each argument that is wrong, and leaves the machine as it was', async ([name, row, method], context) => {
  needsKvm(context)
  if (name.startsWith('DemandPaging.')) needsPaging(context)
  skipInLab(context)
  const machine = makeMachine(row)
  const on = row.of(machine)
  const call = (args: unknown[]) => (method.endsWith('=') ? void (on[method.slice(0, -1)] = args[0]) : on[method](...args))
  const valid = () => (row.takes[method] as (machine: Machine) => unknown[][])(machine)
  const variants = valid()
  const faults = new Set<string>()
  let refused = 0
  for (const args of variants)
    for (const [at, arg] of args.entries())
      for (const { value, mayDo } of wrongOnes(arg, row.takesAlso?.[method] ?? [])) {
        const before = stateOf(machine)
        try {
          await undo(call(args.with(at, value)), machine)
          if (!mayDo) faults.add(`argument ${at}: ${inspect(value)} was taken`)
        } catch (error) {
          refused++
          const fault = faultOf(error, name)
          if (fault) faults.add(`argument ${at}: ${fault}`)
          if (stateOf(machine) !== before) faults.add(`argument ${at}: the machine is another after: ${error}`)
        }
      }
  expect([...faults]).toEqual([])
  if (variants.some((args) => args.length > 0)) expect(refused).toBeGreaterThan(10)
  // What the table calls valid is: no argument of it is refused.
  for (const args of valid()) {
    const result = attempt(() => call(args))
    if (result.error && (result.error.code === 'argument' || faultOf(result.error, name))) throw result.error
    if (!['close', 'delete'].includes(method)) await undo(result.value, machine).catch(() => {})
  }
  closeMachine(machine)
})

function attempt(action: () => unknown): { value?: unknown; error?: any } {
  try {
    return { value: action() }
  } catch (error) {
    return { error }
  }
}
