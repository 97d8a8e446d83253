import { type Exit, KiB, longModeTablesSize, Mapping, type Vcpu } from 'node-kvm'
import { describeHost } from 'node-kvm/observe'
import { assemble } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { needsPaging } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { realMode } from '../support/real-mode.js'
import { isRunning } from '../support/running.js'
import { skip } from '../support/skip.js'
import { vm } from '../support/vm.js'

const run = (vcpu: Vcpu): Exit => vcpu.run({ timeoutMs: patience })

/** Returns an exit that must be of this kind. */
function as<R extends Exit['reason']>(reason: R, exit: Exit | undefined): Extract<Exit, { reason: R }> {
  expect(exit).toMatchObject({ reason })
  return exit as Extract<Exit, { reason: R }>
}
const next = <R extends Exit['reason']>(vcpu: Vcpu, reason: R) => as(reason, run(vcpu))

/** Real-mode guests find devices here, behind their memory. */
const device = 0xf_0000
const withDevice = (source: string) => realMode(vm, `mov $0xf000, %ax; mov %ax, %ds; ${source}`, device)
/** Real-mode code whose #GP (vector 13) is reported at port 0x99. */
const withFaultHandler = (source: string) => realMode(vm, `movw $fault, 13 * 4; movw $0, 13 * 4 + 2; ${source}; hlt; fault: out %al, $0x99; hlt`)

const userSpaceMsr = 188 // KVM_CAP_X86_USER_SPACE_MSR
const unknownMsrs = 2n // KVM_MSR_EXIT_REASON_UNKNOWN
const unknownMsr = 0x1234_5678

describe('an MSR that KVM leaves to user space', () => {
  test('reads what is assigned to data', () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; rdmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    const exit = next(vcpu, 'rdmsr')
    expect(exit).toEqual({ reason: 'rdmsr', index: unknownMsr, cause: 'unknown', data: 0n, failed: false })
    exit.data = 0x1122_3344_5566_7788n
    expect(structuredClone({ ...exit })).toMatchObject({ data: 0x1122_3344_5566_7788n })
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get()).toMatchObject({ rax: 0x5566_7788n, rdx: 0x1122_3344n })
  })

  test('tells what the guest writes, and takes it', () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; mov $0x11223344, %edx; mov $0x55667788, %eax; wrmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    expect(run(vcpu)).toEqual({ reason: 'wrmsr', index: unknownMsr, cause: 'unknown', data: 0x1122_3344_5566_7788n, failed: false })
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
  })

  test.each(['rdmsr', 'wrmsr'] as const)('gives the guest #GP where %s has failed', (instruction) => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; ${instruction}`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    next(vcpu, instruction).failed = true
    expect(run(vcpu)).toMatchObject({ reason: 'io-out', port: 0x99 })
  })

  test('is answered by the handlers of a started vCPU, and by a promise they return', async () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; rdmsr; inc %eax; wrmsr; rdmsr; mov %eax, %ebx; inc %ecx; wrmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    let held = 0x41n
    const end = await vcpu.start({
      rdmsr: async (exit) => {
        await null
        exit.data = held
      },
      wrmsr: (exit) => {
        held = exit.data
        exit.failed = exit.index !== unknownMsr
      }
    })
    expect(end).toMatchObject({ reason: 'io-out', port: 0x99 })
    expect(vcpu.registers.get().rbx).toBe(0x42n)
  })

  test('reads zeros where it is not answered; what is assigned to an earlier exit reaches no later one', () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; rdmsr; in $0x60, %al; rdmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    const first = next(vcpu, 'rdmsr')
    first.data = 5n
    expect(next(vcpu, 'io-in').port).toBe(0x60)
    first.failed = true
    expect(next(vcpu, 'rdmsr').data).toBe(0n)
    first.data = 6n
    first.failed = true
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get().rax).toBe(0n)
  })

  test('refuses answers that do not fit, and keeps the one before', async () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; rdmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    const exit = next(vcpu, 'rdmsr')
    exit.data = 7n
    for (const wrong of [7, 2n ** 64n, -1n, '7', undefined])
      expect(checkedError(() => (exit.data = wrong as bigint), 'argument').argument).toBe('data')
    for (const wrong of [1, 'true', null]) expect(checkedError(() => (exit.failed = wrong as never), 'argument').argument).toBe('failed')
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get().rax).toBe(7n)
    vcpu.registers.set({ rip: 0x1000n })
    const refused = vcpu.start({
      rdmsr: (again) => {
        again.data = 7 as never
      }
    })
    await expect(refused).rejects.toMatchObject({ code: 'argument', argument: 'data' })
  })
})

test('a hypercall gives the guest what is assigned to result', (context) => {
  const exitHypercall = 201 // KVM_CAP_EXIT_HYPERCALL
  const mapGpaRange = 12 // KVM_HC_MAP_GPA_RANGE
  if ((vm.capabilities.check(exitHypercall) & (1 << mapGpaRange)) === 0)
    skip(context, 'this kernel hands no hypercall to user space (KVM_CAP_EXIT_HYPERCALL)')
  if (describeHost().module === 'kvm_pvm') skip(context, 'kvm_pvm runs VMCALL and VMMCALL again without end, and none is an exit')
  const [gpa, pages, attributes] = [0x10_0000, 2, 0x10]
  const vcpu = realMode(vm, '')
  vm.capabilities.enable(exitHypercall, BigInt(1 << mapGpaRange))
  const code = longModeTablesSize()
  const call = `mov $${mapGpaRange}, %eax; mov $${gpa}, %ebx; mov $${pages}, %ecx; mov $${attributes}, %edx; vmcall;`
  vm.memory.write(code, assemble(`${call} mov %rax, %rdi; ${call} mov %rax, %rsi; hlt`, { mode: 'long', at: code }))
  vcpu.enter('long', { ip: code, tables: 0 })
  const exit = next(vcpu, 'hypercall')
  expect(exit).toMatchObject({ number: BigInt(mapGpaRange), isLongMode: true, result: 0n })
  expect(exit.arguments.slice(0, 3)).toEqual([gpa, pages, attributes].map(BigInt))
  for (const wrong of [1, -1n, 2n ** 64n]) expect(checkedError(() => (exit.result = wrong as bigint), 'argument').argument).toBe('result')
  exit.result = 0xffff_ffff_ffff_fff0n
  // The second exit is not answered.
  next(vcpu, 'hypercall')
  expect(run(vcpu)).toEqual({ reason: 'hlt' })
  expect(vcpu.registers.get()).toMatchObject({ rdi: 0xffff_ffff_ffff_fff0n, rsi: 0n })
})

describe('value', () => {
  test('is what the guest writes to a port, and to a device', () => {
    const vcpu = withDevice('mov $0x89abcdef, %eax; out %al, $1; out %ax, $2; out %eax, $3; mov %al, (1); mov %ax, (2); mov %eax, (4); hlt')
    for (const [port, value] of [0xef, 0xcdef, 0x89ab_cdef].entries())
      expect(run(vcpu)).toMatchObject({ reason: 'io-out', port: port + 1, size: 2 ** port, value })
    for (const [shift, value] of [0xef, 0xcdef, 0x89ab_cdef].entries())
      expect(run(vcpu)).toMatchObject({ reason: 'mmio', gpa: device + 2 ** shift, isWrite: true, size: 2 ** shift, value })
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
  })

  test('answers a read, and refuses what does not fit', () => {
    const vcpu = withDevice('in $0x60, %ax; mov %ax, %bx; mov (8), %ecx; hlt')
    const port = next(vcpu, 'io-in')
    port.value = 0xbeef
    expect([...port.data]).toEqual([0xef, 0xbe])
    const wrong = [-1, 0x1_0000, 1.5, Number.NaN, '1', undefined, -1n, 0x1_0000n]
    for (const value of wrong) expect(checkedError(() => (port.value = value as number), 'argument').argument).toBe('value')
    expect(port.value).toBe(0xbeef)
    const mmio = next(vcpu, 'mmio')
    mmio.value = 0xffff_ffff
    expect(mmio).toMatchObject({ size: 4, value: 0xffff_ffff, data: new Uint8Array(4).fill(0xff) })
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get()).toMatchObject({ rbx: 0xbeefn, rcx: 0xffff_ffffn })
  })

  test('of eight bytes is exact, or an error that leads to data', () => {
    const [below, above] = [0x1f_ffff_ffff_ffffn, 0x20_0000_0000_0000n]
    const code = longModeTablesSize()
    const vcpu = realMode(vm, '')
    const source = `mov $0x80000000, %ebx; mov $${below}, %rax; mov %rax, (%rbx); inc %rax; mov %rax, (%rbx); mov (%rbx), %rcx; out %al, $0x10`
    vm.memory.write(code, assemble(source, { mode: 'long', at: code }))
    vcpu.enter('long', { ip: code, tables: 0, ring: 3 })
    const exit = next(vcpu, 'mmio')
    expect(exit).toMatchObject({ size: 8, value: Number(below) })
    checkedError(() => (exit.value = 1), 'state')
    next(vcpu, 'mmio')
    expect(checkedError(() => exit.value, 'limit').message).toContain('data')
    expect(new DataView(exit.data.buffer, exit.data.byteOffset).getBigUint64(0, true)).toBe(above)
    const read = next(vcpu, 'mmio')
    for (const value of [2 ** 53, 2n ** 64n, -1n]) checkedError(() => (read.value = value), 'argument')
    read.value = 0xffff_ffff_ffff_fffen
    expect(run(vcpu)).toMatchObject({ reason: 'io-out', port: 0x10 })
    expect(vcpu.registers.get().rcx).toBe(0xffff_ffff_ffff_fffen)
  })

  test('of a string read is the first access alone', () => {
    const vcpu = realMode(vm, 'cld; mov $0x4000, %di; mov $6, %cx; mov $0x60, %dx; rep insw; hlt')
    const expected: number[] = []
    let exit = run(vcpu)
    for (; exit.reason === 'io-in'; exit = run(vcpu)) {
      exit.value = 0x1234
      expected.push(0x1234, ...new Array<number>(exit.count - 1).fill(0))
    }
    expect(exit).toEqual({ reason: 'hlt' })
    expect(new Uint16Array(vm.memory.read(0x4000, 12).slice().buffer)).toEqual(new Uint16Array(expected))
  })
})

test('a read that nobody answers gives zeros, whatever was written before', () => {
  const vcpu = withDevice('mov $-1, %eax; out %eax, $0x60; in $0x60, %eax; mov %eax, %ebx; movl $-1, (8); mov (8), %ecx; hlt')
  for (const reason of ['io-out', 'io-in', 'mmio', 'mmio', 'hlt']) expect(run(vcpu).reason).toBe(reason)
  expect(vcpu.registers.get()).toMatchObject({ rbx: 0n, rcx: 0n })
})

test('an answer is kept by a run that ends before the guest has it', () => {
  const vcpu = withDevice('in $0x60, %al; mov (8), %cl; hlt')
  next(vcpu, 'io-in').value = 0x5a
  vcpu.kick()
  expect(run(vcpu)).toEqual({ reason: 'interrupted' })
  next(vcpu, 'mmio').value = 0xa5
  vcpu.kick()
  expect(run(vcpu)).toEqual({ reason: 'interrupted' })
  expect(run(vcpu)).toEqual({ reason: 'hlt' })
  const { rax, rcx } = vcpu.registers.get()
  expect([rax & 0xffn, rcx & 0xffn]).toEqual([0x5an, 0xa5n])
})

describe('finishExit()', () => {
  test('in the middle of a string read leaves exactly the bytes that were given', () => {
    const [total, target] = [5000, 0x4000]
    const vcpu = realMode(vm, `cld; mov $${target}, %di; mov $${total}, %cx; mov $0x60, %dx; rep insb; hlt`)
    const rep = 0x1000n + BigInt(assemble(`cld; mov $${target}, %di; mov $${total}, %cx; mov $0x60, %dx`, { mode: 'real', at: 0x1000 }).length)
    let given = 0
    const give = (exit: Exit) => {
      as('io-in', exit).data.fill(7)
      given += as('io-in', exit).count
    }
    give(run(vcpu))
    for (let rest = vcpu.finishExit(); rest; rest = vcpu.finishExit()) give(rest)
    expect(given).toBeLessThan(total)
    expect(vcpu.registers.get()).toMatchObject({ rip: rep, rcx: BigInt(total - given), rdi: BigInt(target + given) })
    expect(vm.memory.read(target, total)).toEqual(new Uint8Array(total).fill(7, 0, given))
    expect(vcpu.finishExit()).toBeUndefined()
    let exit = run(vcpu)
    for (; exit.reason === 'io-in'; exit = run(vcpu)) give(exit)
    expect(exit).toEqual({ reason: 'hlt' })
    expect(given).toBe(total)
  })

  test("in the middle of a device's read-modify-write tells the write, and is then behind the instruction", () => {
    const vcpu = withDevice('increment: incb (4); behind: hlt')
    const [at, length] = [5n, 4n]
    const read = next(vcpu, 'mmio')
    expect(read).toMatchObject({ isWrite: false, gpa: device + 4, size: 1 })
    expect(vcpu.registers.get().rip).toBe(0x1000n + at)
    read.value = 0x41
    expect(vcpu.finishExit()).toMatchObject({ reason: 'mmio', isWrite: true, gpa: device + 4, value: 0x42 })
    expect(vcpu.finishExit()).toBeUndefined()
    expect(vcpu.registers.get().rip).toBe(0x1000n + at + length)
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
  })

  test('tells both parts of a read that crosses a page, each with its answer', () => {
    const vcpu = withDevice('mov (0xffe), %ecx; hlt')
    next(vcpu, 'mmio').value = 0x1122
    const second = as('mmio', vcpu.finishExit())
    expect(second).toMatchObject({ gpa: device + 0x1000, isWrite: false, size: 2 })
    second.value = 0x3344
    expect(vcpu.finishExit()).toBeUndefined()
    expect(vcpu.registers.get().rcx).toBe(0x3344_1122n)
  })

  test('hands on what KVM queues meanwhile, before it returns', () => {
    const vcpu = withDevice('incb (4); hlt')
    const seen: number[][] = []
    using _range = vm.coalesce({ gpa: device, size: 8 }, (writes) => seen.push(...writes.map(({ address, data }) => [address, ...data])))
    next(vcpu, 'mmio').value = 0x41
    expect(vcpu.finishExit()).toBeUndefined()
    expect(seen).toEqual([[device + 4, 0x42]])
  })

  test('serves the pages that are touched meanwhile', (context) => {
    needsPaging(context)
    const target = device + 0xff0
    const vcpu = withDevice('mov %ax, %es; cld; mov $0xff0, %di; mov $8, %cx; mov $0x60, %dx; rep insb; hlt')
    using lazy = Mapping.anonymous(64 * KiB)
    const asked: number[] = []
    using _paging = lazy.onMissing(({ offset }) => {
      asked.push(offset)
      return new Uint8Array(4 * KiB).fill(9)
    })
    vm.memslots.create({ gpa: device, mapping: lazy })
    let given = 0
    for (let exit: Exit | undefined = run(vcpu); exit; exit = vcpu.finishExit()) {
      as('io-in', exit).data.fill(7)
      given += as('io-in', exit).count
    }
    expect(asked).toEqual([0])
    expect(vm.memory.read(target, 9)).toEqual(new Uint8Array(9).fill(9).fill(7, 0, given))
    expect(vcpu.registers.get().rcx).toBe(BigInt(8 - given))
  })

  test('completes an access to an MSR, with its failure', () => {
    const vcpu = withFaultHandler(`mov $${unknownMsr}, %ecx; rdmsr; rdmsr`)
    vm.capabilities.enable(userSpaceMsr, unknownMsrs)
    next(vcpu, 'rdmsr').data = 9n
    expect(vcpu.finishExit()).toBeUndefined()
    expect(vcpu.registers.get().rax).toBe(9n)
    next(vcpu, 'rdmsr').failed = true
    expect(vcpu.finishExit()).toBeUndefined()
    expect(run(vcpu)).toMatchObject({ reason: 'io-out', port: 0x99 })
  })

  test('does nothing where nothing is left, and leaves a kick to the next run', () => {
    const vcpu = realMode(vm, 'in $0x60, %al; hlt')
    expect(vcpu.finishExit()).toBeUndefined()
    next(vcpu, 'io-in').value = 1
    vcpu.kick()
    expect([vcpu.finishExit(), vcpu.finishExit()]).toEqual([undefined, undefined])
    expect(vcpu.registers.get()).toMatchObject({ rip: 0x1002n, rax: 1n })
    expect(run(vcpu)).toEqual({ reason: 'interrupted' })
    expect(run(vcpu)).toEqual({ reason: 'hlt' })
  })

  test('is for a vCPU that is stopped: after stop() it completes what a handler had answered', async () => {
    const vcpu = realMode(vm, 'in $0x60, %al; hlt')
    const running = vcpu.start({
      'io-in': (exit) => {
        checkedError(() => vcpu.finishExit(), 'state')
        exit.value = 0x33
        void vcpu.stop()
      }
    })
    expect(await running).toEqual({ reason: 'stopped' })
    expect(vcpu.finishExit()).toBeUndefined()
    expect(vcpu.registers.get()).toMatchObject({ rip: 0x1002n, rax: 0x33n })
    vcpu.close()
    checkedError(() => vcpu.finishExit(), 'closed')
  })

  test('tells an exit that nobody was told', async () => {
    const vcpu = realMode(vm, 'out %al, $0x10; movb $1, (0x5000); in $0x60, %al; hlt')
    const handlers = {
      'io-out': () => {
        // This waits until the guest has left by the exit after this one.
        while (vm.memory.read(0x5000, 1)[0] === 0 || isRunning(vcpu));
        throw new Error('of the handler')
      },
      'io-in': () => expect.unreachable()
    }
    await expect(vcpu.start(handlers, { queued: [{ port: 0x10 }] })).rejects.toThrow('of the handler')
    as('io-in', vcpu.finishExit()).value = 0x66
    expect(vcpu.finishExit()).toBeUndefined()
    expect(vcpu.registers.get().rax & 0xffn).toBe(0x66n)
  })
})
