import { Mapping } from 'node-kvm'
import { diff, hostVms, hpaToGpa, hvaToGpa, rowOf, summarize, type Tables, trace } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { vm } from '../support/vm.js'

const junk = [null, 0.5, '1', 1n, [], () => 1, Object.create(null)] as any[]

test('what tables() did not return is an argument error wherever tables are taken', () => {
  for (const value of [undefined, ...junk])
    for (const call of [summarize, rowOf, hvaToGpa, hpaToGpa, (table: Tables) => diff(table, table)] as ((value: unknown, at: number) => unknown)[])
      checkedError(() => call(value, 0), 'argument')
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
