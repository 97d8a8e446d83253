import { CpuidEntry, Mapping, Registers, Segment, SpecialRegisters, type Vcpu } from 'node-kvm'
import { translate } from 'node-kvm/observe'
import { describe, expect, test } from 'vitest'
import { address, array, bits, bytes, type Field, type Fields, i8, i16, i32, i64, u8, u16, u32, u64 } from '../../lib/abi/fields.js'
import * as structures from '../../lib/abi/generated/structures.js'
import { Struct, type StructType, struct } from '../../lib/abi/struct.js'
import { checkedError } from '../support/errors.js'
import { skipInLab } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

const schemas = Object.values(structures) as unknown as StructType<Fields>[]
type Loose = Struct & Record<string, unknown>
const throwing = {
  valueOf() {
    throw new Error('valueOf was called')
  },
  toString() {
    throw new Error('toString was called')
  }
}

const noInteger = [-1, 0.5, Number.NaN, Infinity, '1', 1n, undefined, null, true, [1], {}, throwing, Symbol('1')]
const noBigint = [-1n, 2n ** 64n, 2n ** 1000n, 1, Number.NaN, '1', undefined, null, true, [1n], {}, throwing, Symbol('1')]
/** Values that fit each kind of field, and values that do not. */
const scalars = new Map<Field<any>, { fits: unknown[]; not: unknown[] }>([
  [u8, { fits: [0, 0xff], not: [...noInteger, 0x100, 2 ** 32] }],
  [u16, { fits: [0, 0xffff], not: [...noInteger, 0x1_0000, 0x1_2345] }],
  [u32, { fits: [0, 0xffff_ffff], not: [...noInteger, 2 ** 32, 2 ** 32 + 1] }],
  [i8, { fits: [-(2 ** 7), 2 ** 7 - 1], not: [...noInteger.filter((value) => value !== -1), 2 ** 7, -(2 ** 7) - 1] }],
  [i16, { fits: [-(2 ** 15), 2 ** 15 - 1], not: [...noInteger.filter((value) => value !== -1), 2 ** 15, -(2 ** 15) - 1] }],
  [i64, { fits: [-(2n ** 63n), 2n ** 63n - 1n], not: [...noBigint.filter((value) => value !== -1n && typeof value !== 'bigint'), 2n ** 63n] }],
  [i32, { fits: [-(2 ** 31), 2 ** 31 - 1], not: [...noInteger.filter((value) => value !== -1), 2 ** 31, -(2 ** 31) - 1] }],
  [address, { fits: [0, 2 ** 52, Number.MAX_SAFE_INTEGER], not: [...noInteger, 2 ** 53, 2 ** 64] }],
  [u64, { fits: [0n, 2n ** 64n - 1n], not: noBigint }]
])

/** Values that do not fit a field of any kind. */
function unfit(field: Field<any>): unknown[] {
  const known = scalars.get(field)
  if (known) return known.not
  const value = field.get(new DataView(new ArrayBuffer(field.size)), 0)
  if (typeof value === 'number') return [...noInteger, field.get(new DataView(new Uint8Array(field.size).fill(0xff).buffer), 0) + 1]
  if (value instanceof Uint8Array)
    return [
      new Uint8Array(field.size + 1),
      new Uint8Array(field.size - 1),
      new Uint16Array(field.size),
      [],
      {},
      null,
      0,
      throwing,
      Object.create(Uint8Array.prototype)
    ]
  if (Array.isArray(value))
    return [
      [...value, value[0]],
      value.slice(1),
      new Array(value.length),
      [...value.slice(1), -1],
      [...value.slice(1), undefined],
      { length: value.length },
      null,
      throwing
    ]
  return [
    null,
    undefined,
    5,
    'cs',
    [],
    new Uint8Array(field.size),
    { limitt: 1 },
    { bytes: 1 },
    throwing,
    Object.create(Segment.prototype),
    new (field === Registers ? CpuidEntry : Registers)()
  ]
}

describe('a field of a structure takes what it can hold, and refuses the rest by name', () => {
  test.for(schemas.map((schema) => [schema.structName, schema] as const))('%s takes and refuses what it should', ([structName, schema], context) => {
    skipInLab(context)
    for (const [name, field] of Object.entries(schema.fields)) {
      const instance = new schema() as unknown as Loose
      for (const value of scalars.get(field)?.fits ?? []) {
        instance[name] = value
        expect(instance[name]).toBe(value)
      }
      const before = instance.bytes.slice()
      for (const value of unfit(field)) {
        const { argument, message } = checkedError(() => {
          instance[name] = value
        }, 'argument')
        expect(argument).toMatch(new RegExp(`^${structName}\\.${name}(\\W|$)`))
        expect(message).toContain(structName)
        expect(checkedError(() => new schema({ [name]: value }), 'argument').argument).toBe(argument)
        expect(instance.bytes).toEqual(before)
      }
    }
  })

  test('the range is said in the error', () => {
    const { message } = checkedError(() => new SpecialRegisters({ gdt: { limit: 0x1_0007 } }), 'argument')
    expect(message).toBe('kvm_sregs.gdt.limit is 0x10007; it must be a whole number from 0 to 65535')
    expect(checkedError(() => new Registers({ rax: 1 as never }), 'argument').message).toBe(
      'kvm_regs.rax is 0x1; it must be a bigint from 0 to 2^64 - 1'
    )
    expect(checkedError(() => new Registers({ rax: '\x1b[2J\u202e' as never }), 'argument').message).toContain('\\u001b[2J\\u202e')
    expect(checkedError(() => new Registers({ rax: 1n << 100_000n }), 'argument').message.length).toBeLessThan(200)
  })

  test('a 64-bit value that a number cannot hold is not rounded when it is read', () => {
    const Addressed = struct('addressed', 8, () => ({ at: [0, address] }))
    const instance = Addressed.over(new Uint8Array(8).fill(0xff))
    checkedError(() => instance.at, 'limit')
    instance.bytes.set([0, 0, 0, 0, 0, 0, 0x1f, 0])
    expect(instance.at).toBe(0x1f_0000_0000_0000)
  })
})

describe('a value that does not fit leaves all as it was', () => {
  test.for<[string, (vcpu: Vcpu) => void, string]>([
    ['a register', (vcpu) => vcpu.registers.set({ rax: 1n, rbx: -1n }), 'kvm_regs.rbx'],
    ['an unknown register', (vcpu) => vcpu.registers.set({ rax: 1n, ebx: 1n } as never), 'kvm_regs.ebx'],
    ['a limit', (vcpu) => vcpu.registers.setSpecial({ cr2: 1n, gdt: { limit: 0x1_0007 } }), 'kvm_sregs.gdt.limit'],
    ['a selector', (vcpu) => vcpu.registers.setSpecial({ cr2: 1n, cs: { selector: 0x1_2345 } }), 'kvm_sregs.cs.selector'],
    ['an unknown part', (vcpu) => vcpu.registers.setSpecial({ cr2: 1n, cs: { limitt: 1 } as never }), 'kvm_sregs.cs.limitt'],
    ['a debug register', (vcpu) => vcpu.debug.set({ arch: { debugreg: new Array(9).fill(0n) } }), 'kvm_guest_debug.arch.debugreg'],
    ['a spread', (vcpu) => vcpu.registers.set({ ...vcpu.registers.get(), rax: 1n }), 'kvm_regs.bytes'],
    ['an MSR above 32 bits', (vcpu) => vcpu.msrs.get([0xc000_0102, 2 ** 32 + 0x10]), 'indices[1].index'],
    ['MSRs in a typed array with a hole in its meaning', (vcpu) => vcpu.msrs.get('16' as never), 'indices'],
    ['a number for an MSR', (vcpu) => vcpu.msrs.set(new Map([[0xc000_0102, 5 as never]])), 'values[0].data'],
    ['an MSR without a value', (vcpu) => vcpu.msrs.set(new Set([0xc000_0102]) as never), 'values[0]'],
    ['registers for CPUID', (vcpu) => vcpu.cpuid.set([new CpuidEntry(), new Registers() as never]), 'entries[1]'],
    ['no CPUID entries', (vcpu) => vcpu.cpuid.set({ length: 3 } as never), 'entries'],
    ['a hole among CPUID entries', (vcpu) => vcpu.cpuid.set(new Array(2)), 'entries[0]'],
    ['an interrupt vector', (vcpu) => vcpu.events.interrupt(256), 'vector'],
    ['a linear address', (vcpu) => vcpu.debug.translate(2n ** 64n), 'kvm_translation.linear_address'],
    ['a state', (vcpu) => vcpu.events.setMpState(2 ** 32), 'kvm_mp_state.mp_state'],
    ['the registers of a run page', (vcpu) => (vcpu.syncRegisters.registers = { rax: 1n } as never), 'registers'],
    ['signals', (vcpu) => vcpu.setSignalMask(5 as never), 'blocked'],
    ['five values of a capability', () => vm.capabilities.enable(0, 1n, 2n, 3n, 4n, 5n), 'values'],
    ['a wide value of a capability', () => vm.capabilities.enable(0, 2n ** 64n), 'kvm_enable_cap.args[0]'],
    ['a match wider than the write', () => vm.ioeventfd({ port: 0x10, size: 1, datamatch: 0x100n }), 'datamatch'],
    ['a route to nowhere', () => vm.interrupts.setRouting([{ gsi: 5 } as never]), 'irqchip'],
    ['a hole among routes', () => vm.interrupts.setRouting(new Array(3)), 'routes[0]'],
    ['a misspelled route', () => vm.interrupts.setRouting([{ gsi: 5, irqchip: 'ioapic', pinn: 5 } as never]), 'pinn'],
    ['a message of 33 bits', () => vm.interrupts.setRouting([{ gsi: 5, msi: { address: 0xfee0_0000, data: 2 ** 32 } }]), 'data']
  ])('where it is %s', ([, set, argument]) => {
    const vcpu = vm.createVcpu()
    const state = () => [vcpu.registers.get().toObject(), vcpu.registers.getSpecial().toObject()]
    const before = state()
    expect(checkedError(() => set(vcpu), 'argument').argument).toBe(argument)
    expect(state()).toEqual(before)
  })

  test('memory that was transferred away is an error, not a register set of zeros', () => {
    const vcpu = vm.createVcpu()
    const registers = vcpu.registers.get()
    structuredClone(registers.bytes.buffer, { transfer: [registers.bytes.buffer as ArrayBuffer] })
    checkedError(() => vcpu.registers.set(registers), 'ioctl')
    checkedError(() => vcpu.registers.get(registers), 'ioctl')
    checkedError(() => new Registers(registers), 'argument')
    expect(vcpu.registers.get().rflags).toBe(2n)
  })
})

describe('members that share memory, as those of a union in C', () => {
  const { kvm_irq_level, kvm_irq_routing_entry, kvm_ioapic_state, kvm_irqchip } = structures

  test('one shows in the others', () => {
    const level = new kvm_irq_level({ status: -1 })
    expect(level.toObject()).toEqual({ irq: 0xffff_ffff, status: -1, level: 0 })
    const entry = new kvm_irq_routing_entry({ u: { msi: { address_lo: 5, address_hi: 6 } } })
    expect(entry.u.irqchip.toObject()).toEqual({ irqchip: 5, pin: 6 })
    entry.u.irqchip.pin = 7
    expect(entry.u.msi.address_hi).toBe(7)
  })

  test('those given together must agree where they share it', () => {
    expect(new kvm_irq_level({ irq: 5, status: 5 }).irq).toBe(5)
    const { argument, message } = checkedError(() => new kvm_irq_level({ irq: 5, status: 6 }), 'argument')
    expect(argument).toBe('kvm_irq_level.status')
    expect(message).toContain('shares memory')
    // Only the second word differs, and only the value of one member is given for it.
    expect(new kvm_irq_routing_entry({ u: { irqchip: { pin: 6 }, msi: { address_lo: 5 } } }).u.msi.toObject()).toMatchObject({
      address_lo: 5,
      address_hi: 6
    })
    expect(checkedError(() => new kvm_irq_routing_entry({ u: { irqchip: { pin: 6 }, msi: { address_hi: 5 } } }), 'argument').argument).toBe(
      'kvm_irq_routing_entry.u.msi'
    )
  })

  test('an instance among them is compared, too, and what is refused changes nothing', () => {
    const entry = new kvm_irq_routing_entry({ gsi: 3, u: { irqchip: { irqchip: 2, pin: 6 } } })
    const before = entry.bytes.slice()
    const { msi } = new kvm_irq_routing_entry({ u: { msi: { address_lo: 1 } } }).u
    checkedError(() => kvm_irq_routing_entry.assign(entry, 'route', { gsi: 4, u: { irqchip: { irqchip: 2 }, msi } }), 'argument')
    expect(entry.bytes).toEqual(before)
  })

  test.for(schemas.map((schema) => [schema.structName, schema] as const))('%s can be made again from its plain object', ([, schema]) => {
    // Addresses have 52 bits at most.
    const pattern = Uint8Array.from({ length: schema.size }, (_, index) => (index % 8 > 5 ? 0 : (index * 37 + 11) & 0xff))
    const source = schema.over(pattern)
    const plain = source.toObject()
    const again = new schema(plain as never)
    expect(again.toObject()).toEqual(plain)
    expect(new schema(source as never).bytes).toEqual(pattern)
    expect(JSON.parse(JSON.stringify(again))).toEqual(JSON.parse(JSON.stringify(source)))
  })

  test('bit fields have a range each, and leave their neighbours as they are', () => {
    const state = new kvm_ioapic_state({ redirtbl: Array.from({ length: 24 }, () => ({ bits: 2n ** 64n - 1n })) })
    const { fields } = state.redirtbl[23] as InstanceType<typeof kvm_ioapic_state>['redirtbl'][number]
    fields.mask = 0
    fields.delivery_mode = 5
    expect(state.redirtbl[23]?.bits).toBe(0xffff_ffff_fffe_fdffn)
    expect(checkedError(() => (fields.delivery_mode = 8), 'argument').message).toBe(
      'kvm_ioapic_state.redirtbl.fields.delivery_mode is 0x8; it must be a whole number from 0 to 7'
    )
    const wide = struct('wide', 4, () => ({ low: [0, bits(4, 0, 10)], high: [0, bits(4, 10, 22)] }))
    const instance = new wide({ low: 0x3ff, high: 0x2a_aaaa })
    expect(instance.toObject()).toEqual({ low: 0x3ff, high: 0x2a_aaaa })
    expect([...instance.bytes]).toEqual([0xff, 0xab, 0xaa, 0xaa])
  })

  test('structures in an array are windows, as they are alone; a plain object shares nothing', () => {
    const chip = new kvm_irqchip({ chip: { pic: { imr: 0xfb } } })
    const plain = chip.toObject()
    const [first] = chip.chip.ioapic.redirtbl
    if (!(first instanceof Struct)) throw new Error('no structure')
    first.bits = 5n
    expect(chip.chip.ioapic.redirtbl[0]?.fields.vector).toBe(5)
    expect(plain.chip.ioapic.redirtbl[0]?.bits).toBe(0n)
    expect(plain.chip.dummy[2]).toBe(0xfb)
  })

  test('arrays behind a structure are no fields of it', () => {
    const { kvm_cpuid2, kvm_cpuid_entry2, kvm_nested_state, kvm_regs } = structures
    expect(Object.keys(kvm_cpuid2.fields)).toEqual(['nent', 'padding'])
    expect(kvm_cpuid2.flexible).toEqual({ entries: kvm_cpuid_entry2 })
    expect(Object.keys(kvm_nested_state.flexible)).toEqual(['vmx', 'svm'])
    expect(kvm_regs.flexible).toEqual({})
  })
})

test('an error about a value does not run into what the value does', () => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  for (const value of [proxy, throwing, Object.create(null), () => {}, Symbol('s')])
    expect(checkedError(() => translate(vm, value as never), 'argument').argument).toBe('gpa')
  for (const memory of [undefined, [], new Uint8Array(3), new Uint16Array(100)]) checkedError(() => Registers.over(memory as never), 'argument')
})

describe('structures are values', () => {
  test('a copy shares nothing with its source', () => {
    const source = new SpecialRegisters({ cr3: 0x1000n, cs: { limit: 5 }, interrupt_bitmap: [1n, 2n, 3n, 4n] })
    const copy = new SpecialRegisters(source)
    expect(copy.toObject()).toEqual(source.toObject())
    copy.cs.limit = 6
    copy.cr3 = 0n
    expect(source.cs.limit).toBe(5)
    expect(source.cr3).toBe(0x1000n)
    const plain = source.toObject()
    expect(new SpecialRegisters(plain).bytes).toEqual(source.bytes)
    source.cs.limit = 7
    expect(plain).toMatchObject({ cs: { limit: 5 } })
  })

  test('a spread has no fields, and is refused instead of being taken for an empty one', () => {
    const entry = new CpuidEntry({ function: 1, eax: 2 })
    expect(checkedError(() => new CpuidEntry({ ...entry }), 'argument').message).toContain('toObject()')
    expect(new CpuidEntry({ ...entry.toObject(), eax: 3 }).toObject()).toMatchObject({ function: 1, eax: 3 })
    expect(entry.eax).toBe(2)
  })

  test('entries of the supported CPUID are independent of one another', () => {
    const entries = kvm.supportedCpuid()
    expect(entries.length).toBeGreaterThan(1)
    const before = entries.map((entry) => entry.toObject())
    const [first, second] = entries as [CpuidEntry, CpuidEntry]
    first.bytes.fill(0xff)
    structuredClone(first.bytes.buffer, { transfer: [first.bytes.buffer as ArrayBuffer] })
    expect(second.toObject()).toEqual(before[1])
    vm.createVcpu().cpuid.set(before.slice(1))
  })

  test('JSON has 64-bit values as hexadecimal text, as events have', () => {
    expect(JSON.parse(JSON.stringify(new Registers({ rip: 0xffff_ffff_81ab_cdefn })))).toMatchObject({ rip: '0xffffffff81abcdef', rax: '0x0' })
    expect(JSON.parse(JSON.stringify(new SpecialRegisters({ gdt: { base: 1n } })))).toMatchObject({ gdt: { base: '0x1', padding: [0, 0, 0] } })
  })

  test('bytes of any memory are copied: shared, resizable', () => {
    const Bytes = struct('some', 6, () => ({ data: [0, bytes(4)], list: [4, array(u8, 2)] }))
    const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(7)
    const instance = new Bytes({ data: shared })
    shared.fill(1)
    expect([...instance.data]).toEqual([7, 7, 7, 7])
    // This is not in the library's target, but in every supported Node.js.
    const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer & { resize(length: number): void }
    const memory = new Resizable(4, { maxByteLength: 8 })
    const window = new Uint8Array(memory)
    memory.resize(2)
    expect(checkedError(() => new Bytes({ data: window }), 'argument').argument).toBe('some.data')
    const lying = Object.defineProperty(new Uint8Array(2), 'byteLength', { value: 4 })
    expect(checkedError(() => new Bytes({ data: lying }), 'argument').argument).toBe('some.data')
  })

  test('what a getter or a proxy does while it is read reaches nothing', () => {
    const target = new Registers({ rax: 1n, rbx: 2n })
    const error = new Error('of the getter')
    const values = {
      rax: 5n,
      get rbx(): bigint {
        throw error
      }
    }
    expect(() => Registers.assign(target, 'values', values)).toThrow(error)
    expect(target.rax).toBe(1n)
    let reads = 0
    const once = new Proxy({ rax: 7n }, { get: (object, name) => (name === 'rax' && ++reads > 1 ? -1n : Reflect.get(object, name)) })
    Registers.assign(target, 'values', once)
    expect(target.rax).toBe(7n)
  })
})

test('what is refused does not depend on a mapping', () => {
  // The sizes in options go through the same checks.
  checkedError(() => Mapping.anonymous(4096.5), 'argument')
  checkedError(() => vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096), flags: 2 ** 32 }), 'argument')
})
