import { constants as bufferConstants } from 'node:buffer'
import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'
import { KvmError, Mapping, type MemslotTransaction, type Vm } from 'node-kvm'
import {
  accessText,
  decodeEptQualification,
  decodeNestedPageFault,
  decodeSpte,
  describeEvent,
  diff,
  hostVms,
  hpaToGpa,
  hvaToGpa,
  mirror,
  readPagemap,
  rowOf,
  statisticsGrowth,
  summarize,
  type Tables,
  Trace,
  tables,
  timeline,
  trace,
  translate
} from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { checkSignal } from '../../lib/abi/arguments.js'
import { zeroed } from '../../lib/abi/exhausted.js'
import { checkedError } from '../support/errors.js'
import { vm } from '../support/vm.js'

const junk = [null, 0.5, '1', 1n, [], () => 1, Object.create(null)] as any[]

test('what tables() did not return is an argument error wherever tables are taken', () => {
  for (const value of [undefined, ...junk])
    for (const call of [summarize, rowOf, hvaToGpa, hpaToGpa, (table: Tables) => diff(table, table)] as ((value: unknown, at: number) => unknown)[])
      checkedError(() => call(value, 0), 'argument')
})

/** Every kind of value that none of these functions takes, or that only looks like one that they take. */
const nonsense = [
  undefined,
  ...junk,
  NaN,
  -1,
  {},
  [null],
  [1],
  [{}],
  new Proxy({}, {}),
  { gpa: new Float64Array(2), host: null, slot: null, slots: null, kind: null, level: null, evidence: null, hpa: null, secondHpa: null, spte: null },
  { gpa: new Float64Array(2), host: {}, slot: {}, slots: {}, kind: {}, level: {}, evidence: {}, hpa: {}, secondHpa: {}, spte: {} },
  { kind: 'violation', time: 1, elapsed: 1 }
] as any[]

/** Anything but success and a KvmError. */
function rawErrors(calls: Record<string, (value: any) => unknown>, values = nonsense): string[] {
  const raw: string[] = []
  for (const [name, call] of Object.entries(calls))
    for (const value of values)
      try {
        call(value)
      } catch (error) {
        if (!(error instanceof KvmError)) raw.push(`${name}(${inspect(value)}): ${error}`)
      }
  return raw
}

test('functions that are called with nonsense throw a KvmError and no TypeError or RangeError', () => {
  const read = tables(vm)
  const symbols = [...nonsense, Symbol('1'), 2n ** 64n]
  expect(
    rawErrors(
      {
        summarize,
        timeline,
        describeEvent,
        accessText,
        decodeEptQualification,
        decodeNestedPageFault,
        hostVms,
        diff: (value) => diff(read, value),
        rowOf: (value) => rowOf(value, 0),
        'rowOf, gpa': (value) => rowOf(read, value),
        'rowOf, address space': (value) => rowOf(read, 0, value),
        hpaToGpa: (value) => hpaToGpa(value, 0),
        hvaToGpa: (value) => hvaToGpa(value, 0),
        statisticsGrowth: (value) => statisticsGrowth(value, value),
        readPagemap: (value) => readPagemap(value),
        'readPagemap, process': (value) => readPagemap(0, 1, value),
        'decodeSpte, format': (value) => decodeSpte(value, 1n, 1),
        'decodeSpte, entry': (value) => decodeSpte('ept', value, 1),
        'decodeSpte, level': (value) => decodeSpte('ept', 1n, value),
        'Guest.create': (value) => Guest.create(value),
        'Guest.create, options': (value) => Guest.create(vm, value),
        'Trace.of': (value) => Trace.of(value).close(),
        onMissing: (value) => Mapping.anonymous(4096).onMissing(value).close()
      },
      symbols
    )
  ).toEqual([])
})

test('methods of memory that are called with nonsense throw a KvmError and no TypeError or RangeError', () => {
  const mapping = Mapping.memfd(8192)
  const slot = vm.memslots.create({ gpa: 0, mapping })
  const log = vm.dirtyLog()
  const calls: Record<string, (value: any) => unknown> = {}
  const attempt = (transaction: MemslotTransaction) => {
    for (const [name, object] of Object.entries({ mapping, slot, memslots: vm.memslots, log, transaction }))
      for (const [method, { value: call }] of Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(object)))) {
        if (typeof call !== 'function' || ['constructor', 'close', 'delete'].includes(method)) continue
        const first = object === transaction ? slot : 0
        calls[`${name}.${method}`] = (value) => call.call(object, value)
        calls[`${name}.${method}, second`] = (value) => call.call(object, first, value)
        calls[`${name}.${method}, third`] = (value) => call.call(object, first, 4096, value)
      }
    expect(rawErrors(calls, [...nonsense, Symbol('1')])).toEqual([])
    // A memslot has every property that the options of a new one must have, so some of it was no nonsense.
    throw new Error('this must not be called')
  }
  expect(() => vm.memslots.transaction(attempt)).toThrow('this must not be called')
})

test('arrays, bytes and options of another realm, and options without a prototype, are taken', () => {
  const mapping = Mapping.anonymous(8192)
  const foreign = (source: string) => runInNewContext(source)
  mapping.write(0, foreign('new Uint8Array([1, 2])'))
  expect([...mapping.read(0, 2)]).toEqual([1, 2])
  expect(timeline(foreign('[]'))).toBe('')
  const slot = vm.memslots.create(Object.assign(Object.create(null), { gpa: 0, mapping }))
  slot.setFlags(foreign('({ logDirty: true })'))
  expect(slot.logDirty).toBe(true)
  trace(vm, { kinds: foreign("['memslot']"), ringSize: 4096 }).close()
  expect(() => Mapping.anonymous(4096, foreign('({ populat: true })'))).toThrow("no option 'populat'")
})

test('a signal is known by what it can do, whichever realm made it', () => {
  const { signal } = new AbortController()
  const bound = (name: 'throwIfAborted' | 'addEventListener' | 'removeEventListener') => signal[name].bind(signal)
  const foreign = Object.create(null, {
    aborted: { value: false },
    throwIfAborted: { value: bound('throwIfAborted') },
    addEventListener: { value: bound('addEventListener') },
    removeEventListener: { value: bound('removeEventListener') }
  })
  expect(checkSignal('signal', signal)).toBe(signal)
  expect(checkSignal('signal', foreign)).toBe(foreign)
  for (const value of [undefined, ...junk, {}, { throwIfAborted() {} }, { aborted: false }, new EventTarget()])
    expect(checkedError(() => checkSignal('signal', value), 'argument').argument).toBe('signal')
})

test('what is longer than any array of this Node is said to be, and is not called a lack of memory', () => {
  const size = Math.ceil((bufferConstants.MAX_LENGTH + 1) / 4096) * 4096
  if (size > 2 ** 46) return void checkedError(() => zeroed(size), 'limit')
  const mapping = Mapping.memfd(size)
  const error = checkedError(() => mapping.read(0, size), 'limit')
  expect(error.message).toContain(`no array of more than ${bufferConstants.MAX_LENGTH}`)
})

test('what has no tables, or cannot be traced, is an argument error', () => {
  const likeVm = Object.create(Object.getPrototypeOf(vm)) as Vm
  for (const value of [undefined, ...junk, likeVm, new Proxy(vm, {}), vm.memslots]) {
    for (const call of [trace, mirror, tables, (of: any) => translate(of, 0)] as ((of: any) => unknown)[])
      expect(checkedError(() => call(value), 'argument').argument).toBe('vm')
  }
})

test('what is no list, no options and no signal is an argument error', () => {
  const vcpu = vm.createVcpu()
  for (const value of junk) {
    if (typeof value === 'object' && value !== null) continue
    checkedError(() => hostVms(value), 'argument')
    checkedError(() => trace(vm, { kinds: value }), 'argument')
  }
  checkedError(() => hostVms(null as any), 'argument')
  checkedError(() => trace(vm, { tracepoints: 4 as any }), 'argument')
  checkedError(() => vcpu.run(null as any), 'argument')
  checkedError(() => Guest.create(vm).write(0, null as any), 'argument')
})

test('start() refuses what is no signal and no range, and the vCPU can be started after it', async () => {
  vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
  vm.memory.write(0, new Uint8Array([0xf4]))
  const vcpu = vm.createVcpu().enter('real', { ip: 0 })
  for (const options of [{ signal: {} }, { signal: null }, { queued: 4 }, { queued: [null] }] as any[])
    checkedError(() => vcpu.start({}, options), 'argument')
  expect((await vcpu.start({})).reason).toBe('hlt')
})

test('an offset is checked before it is used, and what it does when it is asked for its value is not done', () => {
  const mapping = Mapping.anonymous(8192)
  const closing = { valueOf: () => mapping.close() }
  for (const offset of [1n, -1n, Symbol('1'), closing, '0', null] as any[]) {
    for (const call of [
      mapping.remap,
      mapping.punchHole,
      () => mapping.fill(1, offset),
      () => mapping.advise('dontneed', offset),
      () => mapping.protect('rw', offset)
    ])
      checkedError(() => call.call(mapping, offset), 'argument')
    checkedError(() => vm.memslots.create({ gpa: 0, mapping, offset }), 'argument')
  }
  expect(mapping.closed).toBe(false)
})

test('nothing is mapped at 0', () => {
  checkedError(() => Mapping.anonymous(4096, { address: 0, fixed: true }), 'argument')
  expect(Mapping.anonymous(4096, { address: 0 }).address).toBeGreaterThan(0)
})

test('the ranges of start() are read once: a list that is another afterwards loses no write', async () => {
  vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
  // mov $7, %al; out %al, $0x10; hlt
  vm.memory.write(0, new Uint8Array([0xb0, 7, 0xe6, 0x10, 0xf4]))
  const queued = new Proxy([{ port: 0x10 }], {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (name === '0') target.length = 0
      return value
    }
  })
  const told: number[] = []
  const end = await vm
    .createVcpu()
    .enter('real', { ip: 0 })
    .start({ 'io-out': ({ data }) => told.push(data[0] as number) }, { queued })
  expect({ told, reason: end.reason }).toEqual({ told: [7], reason: 'hlt' })
})
