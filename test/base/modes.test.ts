import { CpuidEntry, type Exit, Mapping, MiB, type Vcpu } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { patience } from '../support/patience.js'
import { vm } from '../support/vm.js'

const tables = 0x1_0000
const stack = 0x8000
/**
 * Each guest reads a device, so that the read can be left unanswered, and then writes its mode to a port: `out` of the width of its mode's addresses.
 */
const guests = {
  real: { at: 0x1000, source: 'mov $0x1234, %ax; mov $0xffff, %bx; mov %bx, %ds; mov %ds:(0x7ff0), %cl; out %al, $1; in $0x60, %al; out %al, $4' },
  protected: { at: 0x2000, source: 'mov $0x1234, %eax; mov 0x80000000, %ecx; push %eax; pop %ebx; out %ax, $2; in $0x60, %al; out %al, $4' },
  long: {
    at: 0x3000,
    source: 'mov $0x1234, %eax; mov $0x80000000, %edi; mov (%rdi), %rcx; push %rax; pop %rbx; out %eax, $3; in $0x60, %al; out %al, $4'
  }
} as const
type Name = 'real' | 'protected' | 'long' | 'long at ring 3'
const names: Name[] = ['real', 'protected', 'long', 'long at ring 3']
const modeOf = (name: Name) => (name === 'long at ring 3' ? 'long' : name)

const code = Object.entries(guests).map(([mode, { at, source }]) => ({ at, bytes: assemble(source, { mode: mode as keyof typeof guests, at }) }))

function prepare(): Vcpu {
  const ram = Mapping.anonymous(1 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  for (const { at, bytes } of code) ram.write(at, bytes)
  return vm.createVcpu()
}
function enter(vcpu: Vcpu, name: Name): Vcpu {
  if (name === 'real') return vcpu.enter('real', { ip: guests.real.at, sp: stack })
  if (name === 'protected') return vcpu.enter('protected', { ip: guests.protected.at, sp: stack })
  return vcpu.enter('long', { ip: guests.long.at, sp: stack, tables, ring: name === 'long' ? 0 : 3 })
}
const run = (vcpu: Vcpu): Exit => vcpu.run({ timeoutMs: patience })

/** Runs the guest from its beginning: the device's answer arrives, and the mode is the one that was asked for. */
function runWhole(vcpu: Vcpu, name: Name): void {
  const read = run(vcpu)
  if (read.reason !== 'mmio') throw new Error(`${name}: ${JSON.stringify({ ...read, data: undefined })}`)
  read.data.fill(0x5a)
  const [port, size] = { real: [1, 1], protected: [2, 2], long: [3, 4] }[modeOf(name)] as [number, number]
  expect(run(vcpu)).toMatchObject({ reason: 'io-out', port, size })
  const { rax, rcx, rbx, rip } = vcpu.registers.get()
  expect(rax & 0xffffn).toBe(0x1234n)
  expect(rcx & 0xffn).toBe(0x5an)
  if (name !== 'real') expect(rbx).toBe(0x1234n)
  expect(rip).toBeLessThan(0x4000n)
  const { cs } = vcpu.registers.getSpecial()
  expect(cs.selector & 3).toBe(name === 'long at ring 3' ? 3 : 0)
}

/** The point at which the first guest is left. */
const befores: Record<string, (vcpu: Vcpu) => void> = {
  'before the first run': () => {},
  'with a read of a device unanswered': (vcpu) => {
    expect(run(vcpu).reason).toBe('mmio')
  },
  'with a read of a port unanswered': (vcpu) => {
    while (run(vcpu).reason !== 'io-in');
  },
  halfway: (vcpu) => {
    while (run(vcpu).reason !== 'io-out');
  }
}

describe.each(Object.entries(befores))('enter() %s', (_, leave) => {
  test.each(names.flatMap((first) => names.map((second) => [first, second] as const)))('leads from %s to %s', (first, second) => {
    const vcpu = enter(prepare(), first)
    leave(vcpu)
    runWhole(enter(vcpu, second), second)
    // Then it goes back to the first mode, from the state that the second guest left.
    runWhole(enter(vcpu, first), first)
  })
})

describe('enter()', () => {
  test('leaves the state of a processor that was just put into the mode, whatever was before', () => {
    const vcpu = prepare()
    const state = (name: Name) => {
      const { apic_base: _, ...special } = enter(vcpu, name).registers.getSpecial().toObject()
      return special
    }
    const fresh = names.map(state)
    // The vCPU is left in long mode with a table of interrupts, a page fault's address, another task priority, and a pending non-maskable interrupt.
    enter(vcpu, 'long')
    vcpu.registers.setSpecial({ cr2: 0xdead_000n, cr8: 5n, idt: { base: 0x5000n, limit: 0xfff }, fs: { base: 0x1234n }, ldt: { selector: 0x28 } })
    vcpu.events.nmi()
    expect(names.map(state)).toEqual(fresh)
    const [real, , long] = fresh
    expect(real).toMatchObject({ efer: 0n, cr3: 0n, cr4: 0n, idt: { base: 0n, limit: 0xffff } })
    expect(long).toMatchObject({ efer: 0x500n, cr3: 0x1_3000n, cr4: 0x620n })
  })

  test('drops an interrupt that waits for the guest, and the shadow that holds it up', () => {
    const vcpu = enter(prepare(), 'real')
    vcpu.events.nmi()
    runWhole(enter(vcpu, 'protected'), 'protected')
    vcpu.events.interrupt(0x20)
    runWhole(enter(vcpu, 'long'), 'long')
  })

  test('keeps the CPUID that it was given, and where that lacks long mode refuses long mode only', () => {
    const vcpu = prepare()
    vcpu.cpuid.set([{ function: 0, eax: 1 }, new CpuidEntry({ function: 1 })])
    runWhole(enter(vcpu, 'real'), 'real')
    const { message } = checkedError(() => enter(vcpu, 'long'), 'state')
    expect(message).toContain('cpuid.set()')
    runWhole(enter(vcpu, 'protected'), 'protected')
  })

  test('changes nothing where it is refused', () => {
    const vcpu = enter(prepare(), 'protected')
    expect(run(vcpu).reason).toBe('mmio')
    const state = () => [vcpu.registers.get().toObject(), vcpu.registers.getSpecial().toObject()]
    const before = state()
    checkedError(() => vcpu.enter('long', { ip: 0x3000, tables: 0x4000_0000 }), 'no-memslot')
    checkedError(() => vcpu.enter('long', { ip: 0x3000, tables, identityBytes: 1.5 }), 'argument')
    checkedError(() => vcpu.enter('constructor' as never, {} as never), 'argument')
    expect(state()).toEqual(before)
    // The read of the device still waits for its answer.
    expect(run(vcpu)).toMatchObject({ reason: 'io-out', port: 2 })
  })

  test('works on a vCPU that ran without CPUID', () => {
    const vcpu = prepare()
    vcpu.registers.setSpecial(enter(vm.createVcpu(), 'real').registers.getSpecial().toObject())
    vcpu.registers.set({ rip: BigInt(guests.real.at), rsp: BigInt(stack), rflags: 2n })
    runWhole(vcpu, 'real')
    runWhole(enter(vcpu, 'protected'), 'protected')
    // Kernels before 5.16 let CPUID be set at any time.
    let refused = false
    try {
      enter(vcpu, 'long')
    } catch (error) {
      refused = true
      expect(checkedError(() => enter(vcpu, 'long'), 'state').message).toContain('cpuid.set()')
      expect(error).toMatchObject({ code: 'state' })
    }
    if (!refused) runWhole(vcpu, 'long')
  })
})
