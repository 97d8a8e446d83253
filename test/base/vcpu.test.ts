import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { KiB, Kvm, longModeTablesSize, Mapping, MiB, type Registers, syncBits, type Vcpu } from 'node-kvm'
import { describeHost } from 'node-kvm/observe'
import { assemble, Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { KVM_GET_MSRS, KVM_GET_REGS } from '../../lib/abi/generated/requests.js'
import type { NativeKvm, NativeVcpu, NativeVm } from '../../lib/abi/native.js'
import { native } from '../../lib/abi/native.js'
import { library, testing } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { patience } from '../support/patience.js'
import { kvm, vm } from '../support/vm.js'

/** A vCPU about to run real-mode code at 0x1000, in 2 MiB of memory. */
function realMode(source: string): Vcpu {
  const ram = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000 })
}

describe('exits', () => {
  test('port writes carry port, size and data', () => {
    const vcpu = realMode('mov $0x1234, %dx; mov $0xdeadbeef, %eax; out %eax, %dx; out %ax, %dx; hlt')
    expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x1234, size: 4, count: 1, data: new Uint8Array([0xef, 0xbe, 0xad, 0xde]) })
    expect(vcpu.run()).toMatchObject({ reason: 'io-out', size: 2, data: new Uint8Array([0xef, 0xbe]) })
    expect(vcpu.run()).toEqual({ reason: 'hlt' })
  })

  test('port reads are answered in place', () => {
    const vcpu = realMode('in $0x60, %al; hlt')
    const exit = vcpu.run()
    if (exit.reason !== 'io-in') throw new Error(exit.reason)
    expect(exit).toMatchObject({ port: 0x60, size: 1, count: 1 })
    exit.data[0] = 0x5a
    expect(vcpu.run().reason).toBe('hlt')
    expect(vcpu.registers.get().rax & 0xffn).toBe(0x5an)
  })

  test('string output arrives whole, in one exit or several', () => {
    const vcpu = realMode('cld; mov $text, %si; mov $5, %cx; mov $0x3f8, %dx; rep outsb; hlt; text: .ascii "bytes"')
    let text = ''
    for (let exit = vcpu.run(); exit.reason === 'io-out'; exit = vcpu.run()) {
      expect(exit.data.byteLength).toBe(exit.size * exit.count)
      text += String.fromCharCode(...exit.data)
    }
    expect(text).toBe('bytes')
  })

  test('MMIO reads are answered in place, MMIO writes carry their data', () => {
    const vcpu = realMode('mov $0xf000, %ax; mov %ax, %ds; mov (0), %eax; mov %eax, (8); hlt')
    vm.memslots.lookup(0)?.resize(MiB - 64 * KiB)
    const read = vcpu.run()
    if (read.reason !== 'mmio') throw new Error(read.reason)
    expect(read).toMatchObject({ gpa: 0xf0000, isWrite: false, size: 4 })
    read.data.set([1, 2, 3, 4])
    expect(vcpu.run()).toMatchObject({ reason: 'mmio', gpa: 0xf0008, isWrite: true, size: 4, data: new Uint8Array([1, 2, 3, 4]) })
    expect(vcpu.run().reason).toBe('hlt')
  })

  test('a triple fault is a shutdown', () => {
    const ram = Mapping.anonymous(2 * MiB)
    vm.memslots.create({ gpa: 0, mapping: ram })
    const at = longModeTablesSize()
    ram.write(at, assemble('ud2', { mode: 'long', at }))
    expect(vm.createVcpu().enter('long', { ip: at, ring: 3, tables: 0 }).run({ timeoutMs: patience }).reason).toBe('shutdown')
  })

  test('a flat 32-bit mode can be entered and runs', () => {
    const ram = Mapping.anonymous(2 * MiB)
    vm.memslots.create({ gpa: 0, mapping: ram })
    ram.write(0x10_0000, assemble('mov $0x12345678, %eax; hlt', { mode: 'protected', at: 0x10_0000 }))
    const vcpu = vm.createVcpu().enter('protected', { ip: 0x10_0000 })
    expect(vcpu.run({ timeoutMs: patience }).reason).toBe('hlt')
    expect(vcpu.registers.get().rax).toBe(0x12345678n)
  })

  test.each([0, 3] as const)('long mode runs at ring %i', (ring) => {
    const ram = Mapping.anonymous(2 * MiB)
    vm.memslots.create({ gpa: 0, mapping: ram })
    const at = longModeTablesSize()
    ram.write(at, assemble('mov $0x1122334455667788, %rax; mov %cs, %ecx; out %al, $0x10', { mode: 'long', at }))
    const vcpu = vm.createVcpu().enter('long', { ip: at, ring, tables: 0 })
    expect(vcpu.run({ timeoutMs: patience }).reason).toBe('io-out')
    const { rax, rcx } = vcpu.registers.get()
    expect(rax).toBe(0x1122334455667788n)
    expect(Number(rcx & 3n)).toBe(ring)
  })

  // The shadow host's processor, and other processors in software, look at the I/O bitmap whatever IOPL says.
  test('code at ring 3 reaches every port', () => {
    const ram = Mapping.anonymous(2 * MiB)
    vm.memslots.create({ gpa: 0, mapping: ram })
    const at = longModeTablesSize()
    const ports = [0x10, 0x3f8, 0x7fff, 0xffff]
    ram.write(at, assemble(ports.map((port) => `mov $${port}, %dx; out %al, %dx`).join('; '), { mode: 'long', at }))
    const vcpu = vm.createVcpu().enter('long', { ip: at, ring: 3, tables: 0 })
    for (const port of ports) expect(vcpu.run({ timeoutMs: patience })).toMatchObject({ reason: 'io-out', port })
  })

  test('the loop of run and look allocates next to nothing', () => {
    const vcpu = realMode('1: out %al, $0x10; jmp 1b')
    const many = (times: number) => {
      let sum = 0
      for (let round = 0; round < times; round++) {
        const exit = vcpu.run()
        if (exit.reason === 'io-out') sum += exit.port + (exit.data[0] ?? 0)
      }
      return sum
    }
    many(3000)
    // The runtime's own allocations come and go; an exit's allocations would show in every round.
    const growth = Array.from({ length: 5 }, () => {
      globalThis.gc?.()
      const before = process.memoryUsage().heapUsed
      many(10_000)
      return (process.memoryUsage().heapUsed - before) / 10_000
    })
    expect(Math.min(...growth)).toBeLessThan(16)
  })

  test.each([
    ['port', '1: out %al, $0x10; inc %al; jmp 1b'],
    ['address outside the memory', 'mov $0xf000, %bx; mov %bx, %ds; 1: mov %al, (0); inc %al; jmp 1b']
  ])('after a write to a %s, data that the caller transferred away stay as they were, and the next exits have others', (_, source) => {
    const vcpu = realMode(source)
    vm.memslots.lookup(0)?.resize(64 * KiB)
    const write = () => {
      const exit = vcpu.run()
      if (exit.reason !== 'io-out' && exit.reason !== 'mmio') throw new Error(exit.reason)
      return exit.data
    }
    const first = write()
    const value = first[0] as number
    const kept = structuredClone(first, { transfer: [first.buffer as ArrayBuffer] })
    expect([write()[0], write()[0], kept[0]]).toEqual([value + 1, value + 2, value])
  })

  test('a closed vCPU is not taken for the one that is made after it', () => {
    const closed = realMode('hlt')
    closed.close()
    const next = vm.createVcpu().enter('real', { ip: 0x1000 })
    for (const use of [() => closed.run(), () => closed.registers.get(), () => closed.registers.set({ rip: 0n })]) checkedError(use, 'closed')
    expect(next.registers.get().rip).toBe(0x1000n)
    expect(next.run()).toEqual({ reason: 'hlt' })
  })
})

/**
 * Interrupts are on because Bochs, the emulated machine of lane ept, does not let the host's interrupts end a guest whose interrupts were never on.
 */
const endless = 'sti; 1: jmp 1b'

describe('a limit in time', () => {
  test('ends a guest that never exits, which can go on afterwards', () => {
    const vcpu = realMode(endless)
    for (let round = 0; round < 5; round++) expect(vcpu.run({ timeoutMs: 20 }).reason).toBe('timeout')
  })
  test('of zero enters the guest for no long time', () => {
    expect(realMode(endless).run({ timeoutMs: 0 }).reason).toBe('timeout')
  })
  test('leaves no signal behind that would end a later run', async () => {
    const vcpu = realMode('mov $0x60, %al; 1: out %al, $0x10; jmp 1b')
    for (let round = 0; round < 200; round++) expect(vcpu.run({ timeoutMs: patience }).reason).toBe('io-out')
    await sleep(20)
    expect(vcpu.run().reason).toBe('io-out')
  })
  test('a kick before a run ends that run, once', () => {
    const vcpu = realMode(endless)
    vcpu.kick()
    expect(vcpu.run({ timeoutMs: 20 }).reason).toBe('interrupted')
    expect(vcpu.run({ timeoutMs: 20 }).reason).toBe('timeout')
  })
  test.each([-1, Number.NaN, '5', Infinity])('of %s is refused', (timeoutMs) => {
    const vcpu = realMode('hlt')
    expect(checkedError(() => vcpu.run({ timeoutMs: timeoutMs as number }), 'argument').argument).toBe('timeoutMs')
    checkedError(() => vcpu.run({ timeout: 5 } as never), 'argument')
  })
})

describe('registers', () => {
  test('are read and written whole or by name', () => {
    const vcpu = vm.createVcpu()
    const values = vcpu.registers.get()
    values.rax = 0xffff_ffff_ffff_ffffn
    values.r15 = 15n
    vcpu.registers.set(values)
    vcpu.registers.set({ rbx: 1n })
    expect(vcpu.registers.get()).toMatchObject({ rax: 0xffff_ffff_ffff_ffffn, rbx: 1n, r15: 15n })
    expect(vcpu.registers.get(values)).toBe(values)
    expect(values.rbx).toBe(1n)
    checkedError(() => vcpu.registers.get({} as never), 'argument')
    const special = vcpu.registers.getSpecial()
    special.fs.base = 0x1234n
    vcpu.registers.setSpecial(special)
    expect(vcpu.registers.getSpecial().fs.base).toBe(0x1234n)
    vcpu.msrs.set(new Map([[0xc000_0102, 0x77n]]))
    expect(vcpu.msrs.get([0xc000_0102])).toEqual([0x77n])
    vcpu.registers.setFpu({ fcw: 0x27f })
    expect(vcpu.registers.getFpu().fcw).toBe(0x27f)
    expect(vcpu.events.getMpState()).toBe(0)
  })
  test('refuse a number, an unknown name, and an MSR that does not exist', () => {
    const vcpu = vm.createVcpu()
    checkedError(() => vcpu.registers.set({ rax: 1 as never }), 'argument')
    expect(checkedError(() => vcpu.registers.set({ eax: 1n } as never), 'argument').argument).toBe('kvm_regs.eax')
    checkedError(() => vcpu.registers.set(null as never), 'argument')
    checkedError(() => vcpu.msrs.get([0x12345678]), 'ioctl')
  })
  test('the guest gets the CPUID that it is given', () => {
    const vcpu = realMode('mov $0, %eax; cpuid; hlt')
    vcpu.cpuid.set(kvm.supportedCpuid())
    expect(vcpu.run().reason).toBe('hlt')
    expect(vcpu.registers.get().rbx).not.toBe(0n)
  })
})

// Case H02.
describe('registers in the run page', () => {
  test('refuse a bit that KVM does not know with EINVAL', () => {
    const vcpu = realMode('hlt')
    vcpu.syncRegisters.ask(1 << 20)
    expect(checkedError(() => vcpu.run(), 'ioctl').errno).toBe('EINVAL')
    vcpu.syncRegisters.ask(0)
    vcpu.syncRegisters.markDirty(1 << 20)
    expect(checkedError(() => vcpu.run(), 'ioctl').errno).toBe('EINVAL')
    vcpu.syncRegisters.markDirty(0)
    expect(vcpu.run().reason).toBe('hlt')
  })
  test('are fresh where they were asked for, stale where they were not, and applied where they were marked dirty', () => {
    const vcpu = realMode('1: out %al, $0x10; inc %bx; jmp 1b')
    vcpu.syncRegisters.ask(syncBits.registers | syncBits.specialRegisters)
    vcpu.run()
    const registers: Registers = vcpu.syncRegisters.registers
    expect(registers.toJSON()).toEqual(vcpu.registers.get().toJSON())
    expect(vcpu.syncRegisters.specialRegisters.cr0).toBe(vcpu.registers.getSpecial().cr0)
    registers.rbx = 0x0badn
    vcpu.syncRegisters.registers = registers
    vcpu.syncRegisters.markDirty(syncBits.registers)
    vcpu.run()
    expect(vcpu.syncRegisters.registers.rbx).toBe(0x0baen)
    vcpu.syncRegisters.ask(0)
    registers.rbx = 0xaaaan
    vcpu.syncRegisters.registers = registers
    vcpu.run()
    expect(vcpu.syncRegisters.registers.rbx).toBe(0xaaaan)
    expect(vcpu.registers.get().rbx).toBe(0x0bafn)
  })
})

describe('memslots under a guest', () => {
  // Case A05.
  test('a deleted slot reads as MMIO while the guest lives on, and reads 0 when it is created again', () => {
    const guest = Guest.create(vm)
    const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
    expect(guest.write(0xa000, 7n).reason).toBe('done')
    expect(guest.read(0xa000)).toEqual({ reason: 'done', value: 7n })
    slot.delete()
    expect(guest.read(0xa000)).toEqual({ reason: 'mmio', gpa: 0xa000, isWrite: false, size: 8 })
    vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
    expect(guest.read(0xa000)).toEqual({ reason: 'done', value: 0n })
  })

  test('a READONLY slot is read, and written by MMIO exits', () => {
    const guest = Guest.create(vm)
    const mapping = Mapping.anonymous(4 * KiB)
    mapping.fill(1)
    vm.memslots.create({ gpa: 0xa000, mapping, readonly: true })
    expect(guest.read(0xa000)).toMatchObject({ reason: 'done', value: 0x0101010101010101n })
    expect(guest.write(0xa000, 7n)).toMatchObject({ reason: 'mmio', gpa: 0xa000, isWrite: true })
  })

  test('memory the host cannot give is an error, and the vCPU goes on once it can', () => {
    const guest = Guest.create(vm)
    const mapping = Mapping.anonymous(4 * KiB)
    vm.memslots.create({ gpa: 0xa000, mapping })
    mapping.protect('none')
    let seen: string
    try {
      const access = guest.read(0xa000)
      seen = access.reason === 'failed' ? access.exit.reason : access.reason
    } catch (error) {
      seen = checkedError(() => {
        throw error
      }, 'memory').errno as string
    }
    expect(['EFAULT', 'memory-fault']).toContain(seen)
    mapping.protect('rw')
    mapping.write(0, new Uint8Array([9]))
    expect(guest.read(0xa000)).toEqual({ reason: 'done', value: 9n })
  })

  test('the dirty log has the pages the guest wrote, in slots of any size', () => {
    const guest = Guest.create(vm)
    const slot = vm.memslots.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(67 * 4 * KiB), logDirty: true })
    guest.touch(slot.gpa, 67, 'read')
    guest.touch(slot.gpa + 65 * 4 * KiB, 2, 'write', 1)
    expect(slot.dirtyPages()).toEqual([slot.gpa + 65 * 4 * KiB, slot.gpa + 66 * 4 * KiB])
    expect(slot.dirtyPages()).toEqual([])
    slot.setFlags({ logDirty: false })
    checkedError(() => slot.getDirtyLog(), 'argument')
  })
})

describe('lifetimes', () => {
  test('vCPUs beyond the limit, ids that are used twice, and every use after close are typed errors', () => {
    checkedError(() => vm.createVcpu(vm.limits.vcpuIds), 'limit')
    checkedError(() => vm.createVcpu(-1), 'argument')
    const vcpu = vm.createVcpu(0)
    expect(checkedError(() => vm.createVcpu(0), 'ioctl').errno).toBe('EEXIST')
    vm.close()
    vm.close()
    for (const use of [
      () => vcpu.run(),
      () => vcpu.kick(),
      () => vcpu.registers.get(),
      () => vcpu.stats.read(),
      () => vm.stats.read(),
      () => vm.createVcpu(),
      () => vm.memory.read(0, 1),
      () => vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }),
      () => vcpu.syncRegisters.registers,
      () => vcpu.enter('real', { ip: 0 })
    ])
      checkedError(use, 'closed')
    kvm.close()
    for (const use of [() => kvm.createVm(), () => kvm.capabilities.check(1), () => kvm.supportedCpuid()]) checkedError(use, 'closed')
  })
  test('a device that is none is an error', () => {
    checkedError(() => Kvm.open('/dev/absent'), 'unavailable')
    expect(checkedError(() => Kvm.open('/dev/null'), 'unavailable').message).toContain('/dev/null')
    checkedError(() => Kvm.open(5 as never), 'argument')
  })
  test('entering a mode checks its options', () => {
    const vcpu = vm.createVcpu()
    checkedError(() => vcpu.enter('unreal' as never, { ip: 0 } as never), 'argument')
    expect(checkedError(() => vcpu.enter('real', { ip: 0x1_0000 }), 'argument').argument).toBe('ip')
    checkedError(() => vcpu.enter('long', { ip: 0, tables: 0 }), 'no-memslot')
    expect(checkedError(() => vcpu.enter('long', { ip: 0, tables: 5 }), 'argument').argument).toBe('tables')
  })
  test('a Worker that ends in mid-use releases what it held, and two may load the add-on', async () => {
    const source = `
      const { parentPort } = require('node:worker_threads')
      Promise.all([import(${library}), import(${testing})]).then(([{ Kvm, Mapping }, { Guest }]) => {
        globalThis.kept = Kvm.open()
        const vm = (globalThis.vm = kept.createVm())
        const guest = Guest.create(vm)
        vm.memslots.create({ gpa: 0xa000, mapping: (globalThis.mapping = Mapping.anonymous(4096)) })
        globalThis.buffer = mapping.buffer
        guest.write(0xa000, 5n)
        parentPort.postMessage(guest.read(0xa000).value)
      })
      setInterval(() => {}, 1000)`
    const { descriptors } = await import('../support/process.js')
    const before = descriptors()
    const workers = [new Worker(source, { eval: true }), new Worker(source, { eval: true })]
    const values = await Promise.all(workers.map((worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))))
    expect(values).toEqual([5n, 5n])
    await Promise.all(workers.map((worker) => worker.terminate()))
    expect(descriptors()).toBe(before)
  })
})

test('the statistics count what the guest did', () => {
  const guest = Guest.create(vm)
  vm.memslots.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(256 * KiB) })
  const before = Number(guest.vcpu.stats.read('pf_fixed'))
  guest.touch(0x10_0000, 64, 'write')
  expect(Number(guest.vcpu.stats.read('pf_fixed')) - before).toBeGreaterThanOrEqual(64)
  expect(['ept', 'npt', 'shadow']).toContain(describeHost().mmu)
})

test('an ioctl of which an argument is refused leaves the vCPU to the next', () => {
  const addon = native.open('/dev/kvm', true) as NativeKvm
  const other = addon.createVm(0) as NativeVm
  const vcpu = other.createVcpu(0) as NativeVcpu
  for (const bytes of ['no bytes', null, 5] as never[]) expect(() => vcpu.ioctlCounted(KVM_GET_MSRS.number, bytes)).toThrow(TypeError)
  expect(vcpu.ioctl(KVM_GET_REGS.number, new Uint8Array(144))).toBe(0)
  for (const descriptor of [vcpu, other, addon]) descriptor.close()
})
