import { setImmediate as turn } from 'node:timers/promises'
import { assemble, type CoalescedWrite, capabilities, Mapping, MiB, type Vcpu } from 'node-kvm'
import { expect, type TestContext, test } from 'vitest'
import { checkedError } from './support/errors.js'
import { kernelIsAtLeast } from './support/kernel.js'
import { inLab, skip } from './support/skip.js'
import { kvm, vm } from './support/vm.js'

const hole = 0xf0000
// A page for the ring's two indices and entries of 24 bytes, one of which stays free.
const capacity = Math.floor((4096 - 8) / 24) - 1

function need(context: TestContext): void {
  if (kvm.checkExtension(capabilities.COALESCED_PIO) === 0) skip(context, 'this kernel lacks KVM_CAP_COALESCED_PIO')
}

function realMode(source: string): Vcpu {
  const ram = Mapping.anonymous(MiB)
  vm.memslots.create({ gpa: 0, mapping: ram, size: hole })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
}

const numbers = (writes: readonly CoalescedWrite[]) => writes.map(({ address, data }) => [address, Buffer.from(data).readUIntLE(0, data.length)])

// Until Linux 6.12 the room was reckoned wrongly while the ring had not wrapped: the write after the 85th exits already (coalesced_mmio_has_room()).
const isExact = kernelIsAtLeast(6, 12)

test('H01 the ring holds its size less one, the next write exits; all arrive, in order, before their exit', (context) => {
  need(context)
  const seen: number[] = []
  const batches: number[] = []
  vm.coalesce({ port: 0x3f8, size: 8 }, (writes) => {
    batches.push(writes.length)
    seen.push(...numbers(writes).map(([, value]) => value as number))
  })
  const total = capacity * 2 + 12
  const vcpu = realMode(`xor %ax, %ax; mov $0x3f8, %dx; mov $${total}, %cx; 1: out %ax, %dx; inc %ax; loop 1b; hlt`)
  for (let exit = vcpu.run(); exit.reason !== 'hlt'; exit = vcpu.run()) {
    if (exit.reason !== 'io-out') throw new Error(exit.reason)
    // What was written before this exit was handed on before it.
    const value = Buffer.from(exit.data).readUInt16LE()
    expect(value).toBe(seen.length)
    seen.push(value)
  }
  expect(seen).toEqual(Array.from({ length: total }, (_, value) => value))
  if (isExact) expect(batches).toEqual([capacity, capacity, 10])
  else expect(Math.max(...batches)).toBeLessThanOrEqual(capacity)
})

test('a handler that runs another vCPU leaves the exit after its writes what it was', (context) => {
  need(context)
  const vcpu = realMode('out %al, $0x10; out %ax, $0x20; hlt')
  const other = vm.createVcpu().enter('real', { ip: 0x1800 })
  vm.write(0x1800, assemble('out %al, $0x21; hlt', { mode: 'real', at: 0x1800 }))
  const seen: unknown[] = []
  vm.coalesce({ port: 0x10, size: 1 }, () => seen.push({ ...other.run() }))
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x20, size: 2 })
  expect(seen).toMatchObject([{ port: 0x21, size: 1 }])
})

test('H01 ports and memory interleave, each to its own handler, in the order of the guest', (context) => {
  need(context)
  const order: [string, number[][]][] = []
  vm.coalesce({ gpa: hole, size: 0x100 }, (writes) => order.push(['memory', numbers(writes)]))
  vm.coalesce({ port: 0x10, size: 2 }, (writes) => order.push(['ports', numbers(writes)]))
  const vcpu = realMode(`mov $0xf000, %ax; mov %ax, %ds; movb $1, (0); movb $2, (0xff); out %al, $0x10
    movl $0x12345678, (8); mov $7, %al; out %al, $0x11; out %al, $0x12; movb $3, (0x100); hlt`)
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x12 })
  expect(order).toEqual([
    [
      'memory',
      [
        [hole, 1],
        [hole + 0xff, 2]
      ]
    ],
    ['ports', [[0x10, 0]]],
    ['memory', [[hole + 8, 0x12345678]]],
    ['ports', [[0x11, 7]]]
  ])
  expect(vcpu.run()).toMatchObject({ reason: 'mmio', gpa: hole + 0x100 })
  expect(vcpu.run().reason).toBe('hlt')
})

test('H01 after the end of the range each write exits, and what waited has arrived', (context) => {
  need(context)
  const seen: number[] = []
  const zone = vm.coalesce({ port: 0x10, size: 1 }, (writes) => seen.push(...writes.map(({ data }) => data[0]!)))
  const vcpu = realMode('sti; mov $1, %al; out %al, $0x10; 1: jmp 1b; mov $2, %al; out %al, $0x10; mov $3, %al; out %al, $0x10; hlt')
  // Nothing has left the guest but the time limit, which Bochs (lane ept) lets end only a guest that has interrupts on.
  expect(vcpu.run({ timeoutMs: 50 }).reason).toBe('timeout')
  expect(seen).toEqual([1])
  zone.close()
  zone.close()
  vcpu.setRegisters({ rip: vcpu.getRegisters().rip + 2n })
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', data: new Uint8Array([2]) })
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', data: new Uint8Array([3]) })
  expect(vcpu.run().reason).toBe('hlt')
  expect(seen).toEqual([1])
})

test('a handler that throws does not lose the exit', async (context) => {
  need(context)
  vm.coalesce({ port: 0x10, size: 1 }, () => {
    throw new Error('of the handler')
  })
  const vcpu = realMode('out %al, $0x10; in $0x20, %al; hlt')
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  let thrown = ''
  process.once('uncaughtException', (error) => {
    thrown = error.message
  })
  const exit = vcpu.run()
  expect(exit).toMatchObject({ reason: 'io-in', port: 0x20 })
  await turn()
  for (const listener of listeners) process.on('uncaughtException', listener)
  expect(thrown).toBe('of the handler')
})

test('ranges that are none, and more than a VM has room for', (context) => {
  need(context)
  for (const [range, argument] of [
    [{ size: 1 }, 'port'],
    [{ port: 1, gpa: 1, size: 1 }, 'port'],
    [{ port: 1 }, 'size'],
    [{ port: 1, size: 1, length: 1 }, 'length'],
    [{ port: -1, size: 1 }, 'port']
  ] as const)
    expect(checkedError(() => vm.coalesce(range as never, () => {}), 'argument').argument).toBe(argument)
  expect(checkedError(() => vm.coalesce({ port: 1, size: 1 }, undefined as never), 'argument').argument).toBe('handler')
  // Each waits for KVM's readers (synchronize_srcu): a thousand take a minute on an emulated machine.
  if (!inLab)
    expect(
      checkedError(() => {
        for (let made = 0; made < 10_000; made++) vm.coalesce({ gpa: hole + made, size: 1 }, () => {})
      }, 'ioctl').errno
    ).toBe('ENOSPC')
  vm.close()
  checkedError(() => vm.coalesce({ port: 1, size: 1 }, () => {}), 'closed')
})
