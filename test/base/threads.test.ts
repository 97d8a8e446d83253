import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { KiB, Mapping, type MemoryError, MiB } from 'node-kvm'
import { assemble, Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { kernelIsAtLeast } from '../support/kernel.js'
import { patience } from '../support/patience.js'
import { descriptors, threadFiles, threads } from '../support/process.js'
import { realModeGuest, untilRunning } from '../support/running.js'
import { inLab, skip, skipWhereSlow } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

/** Interrupts are on because of Bochs: see vcpu.test.ts. */
const endless = 'sti; 1: jmp 1b'

async function refused(promise: Promise<unknown>, code: string) {
  await expect(promise).rejects.toMatchObject({ name: 'KvmError', code })
}

describe('a vCPU on a thread of its own', () => {
  test('calls handlers in the event loop, takes their answers, and ends with the exit that has none', async () => {
    const vcpu = realModeGuest(vm, 'mov $0x3f8, %dx; mov $65, %al; out %al, %dx; in $0x60, %al; out %al, %dx; hlt')
    const seen: unknown[] = []
    const running = vcpu.start({
      'io-out': ({ port, data }) => seen.push([port, data[0]]),
      'io-in': async (exit) => {
        await sleep(5)
        exit.data[0] = 66
      }
    })
    expect(vcpu.state).toBe('running')
    expect(threads()).toContain('kvm-vcpu-0')
    expect(await running).toEqual({ reason: 'hlt' })
    expect(seen).toEqual([
      [0x3f8, 65],
      [0x3f8, 66]
    ])
    expect(vcpu.state).toBe('stopped')
    expect(threads()).not.toContain('kvm-vcpu-0')
  })

  test('lets timers run while the guest never exits, and stops', async () => {
    const vcpu = realModeGuest(vm, endless)
    const running = vcpu.start({})
    await sleep(20)
    expect(vcpu.state).toBe('running')
    await vcpu.stop()
    expect(await running).toEqual({ reason: 'stopped' })
    await vcpu.stop()
  })

  test('asks for turns twice as long as a thread has, so that the event loop goes before it (Linux 6.12)', async (context) => {
    const sliceOf = (name: string) => {
      const file = threadFiles('sched').find((file) => file.startsWith(`${name} (`))
      return Number(/se\.slice\s*:\s*(\d+)/.exec(file ?? '')?.[1] ?? skip(context, 'this kernel does not tell the length of turns in /proc'))
    }
    if (!kernelIsAtLeast(6, 12)) skip(context, 'before Linux 6.12 all threads have turns of one length')
    const vcpu = realModeGuest(vm, endless)
    const running = vcpu.start({})
    await untilRunning(vcpu)
    const [ours, usual] = [sliceOf('kvm-vcpu-0'), sliceOf(readFileSync('/proc/self/comm', 'utf8').trim())]
    await vcpu.stop()
    await running
    expect(ours).toBe(2 * usual)
  })

  test('is parked and goes on, and its registers are there while it is parked and refused while it runs', async () => {
    const vcpu = realModeGuest(vm, 'sti; 1: inc %ebx; jmp 1b')
    const running = vcpu.start({})
    await untilRunning(vcpu)
    expect(checkedError(() => vcpu.registers.get(), 'busy').message).toContain('pause()')
    checkedError(() => vcpu.registers.set({ rax: 1n }), 'busy')
    checkedError(() => vcpu.msrs.get([0x10]), 'busy')
    await vcpu.pause()
    expect(vcpu.state).toBe('parked')
    const { rbx } = vcpu.registers.get()
    await sleep(10)
    expect(vcpu.registers.get().rbx).toBe(rbx)
    const later = async () => {
      vcpu.resume()
      await sleep(20)
      await vcpu.pause()
      return vcpu.registers.get().rbx
    }
    await expect.poll(later).not.toBe(rbx)
    vcpu.registers.set({ rbx: 7n })
    expect(vcpu.registers.get().rbx).toBe(7n)
    await vcpu.stop()
    expect(await running).toEqual({ reason: 'stopped' })
  })

  test('has its registers inside a handler', async () => {
    const vcpu = realModeGuest(vm, 'mov $5, %ebx; out %al, $0x10; hlt')
    let rbx: bigint | undefined
    await vcpu.start({
      'io-out': () => {
        rbx = vcpu.registers.get().rbx
      }
    })
    expect(rbx).toBe(5n)
  })

  test('says what is illegal in its state', async () => {
    const vcpu = realModeGuest(vm, endless)
    await refused(vcpu.pause(), 'state')
    checkedError(() => vcpu.resume(), 'state')
    const running = vcpu.start({})
    checkedError(() => vcpu.start({}), 'state')
    checkedError(() => vcpu.run(), 'state')
    checkedError(() => vcpu.resume(), 'state')
    await vcpu.pause()
    expect(checkedError(() => vcpu.run(), 'state').message).toContain('parked')
    await vcpu.pause()
    vcpu.resume()
    await vcpu.stop()
    expect(await running).toEqual({ reason: 'stopped' })
    expect(vcpu.run({ timeoutMs: 1 }).reason).toBe('timeout')
  })

  test('is stopped by a handler that throws, whose error reaches the caller, and can be started where it was', async () => {
    const vcpu = realModeGuest(vm, 'mov $1, %al; out %al, $0x10; mov $2, %al; out %al, $0x10; hlt')
    const error = new Error('of the handler')
    await expect(
      vcpu.start({
        'io-out': () => {
          throw error
        }
      })
    ).rejects.toBe(error)
    await expect(vcpu.start({ 'io-out': async () => Promise.reject(error) })).rejects.toBe(error)
    expect(vcpu.state).toBe('stopped')
    expect(await vcpu.start({})).toEqual({ reason: 'hlt' })
  })

  test('can be paused, stopped and closed though a handler never answers', async () => {
    const vcpu = realModeGuest(vm, '1: out %al, $0x10; jmp 1b')
    const never = () => new Promise(() => {})
    let calls = 0
    const running = vcpu.start({
      'io-out': () => {
        calls++
        return never()
      }
    })
    while (calls === 0) await turn()
    await vcpu.pause()
    expect(vcpu.state).toBe('parked')
    await vcpu.stop()
    expect(await running).toEqual({ reason: 'stopped' })
    const again = vcpu.start({ 'io-out': never })
    await sleep(5)
    vm.close()
    expect(await again).toEqual({ reason: 'stopped' })
  })

  test('ends its run at stop() in a handler, and the answer given before counts', async () => {
    const vcpu = realModeGuest(vm, 'in $0x60, %al; mov %al, %bl; hlt')
    const end = await vcpu.start({
      'io-in': (exit) => {
        exit.data[0] = 9
        void vcpu.stop()
      }
    })
    expect(end).toEqual({ reason: 'stopped' })
    expect(vcpu.run()).toEqual({ reason: 'hlt' })
    expect(vcpu.registers.get().rbx & 0xffn).toBe(9n)
  })

  test('is ended by an AbortSignal', async () => {
    const vcpu = realModeGuest(vm, endless)
    const controller = new AbortController()
    const running = vcpu.start({}, { signal: controller.signal })
    await sleep(5)
    controller.abort(new Error('enough'))
    await expect(running).rejects.toThrow('enough')
    await expect(vcpu.start({}, { signal: controller.signal })).rejects.toThrow('enough')
    expect(vcpu.state).toBe('stopped')
  })

  test('tells a kick to a handler for it, and is harmed by none without', async () => {
    const vcpu = realModeGuest(vm, endless)
    let kicks = 0
    const running = vcpu.start({ interrupted: () => void kicks++ })
    for (let kick = 1; kick <= 5; kick++) {
      vcpu.kick()
      while (kicks < kick) await turn()
    }
    await vcpu.stop()
    expect(await running).toEqual({ reason: 'stopped' })
    const deaf = vcpu.start({})
    vcpu.kick()
    await sleep(5)
    expect(vcpu.state).toBe('running')
    await vcpu.stop()
    await deaf
  })

  test('ends its thread when it is closed, or its VM, while it runs', async () => {
    const one = realModeGuest(vm, endless)
    const other = vm.createVcpu().enter('real', { ip: 0x1000 })
    const ends = [one.start({}), other.start({})]
    await sleep(5)
    one.close()
    expect(await ends[0]).toEqual({ reason: 'stopped' })
    checkedError(() => one.start({}), 'closed')
    vm.close()
    expect(await ends[1]).toEqual({ reason: 'stopped' })
    await refused(other.pause(), 'closed')
    expect(threads().filter((name) => name.startsWith('kvm-vcpu'))).toEqual([])
  })

  test('refuses misspelled options and handlers that are none', () => {
    const vcpu = realModeGuest(vm, 'hlt')
    checkedError(() => vcpu.start({}, { signals: 1 } as never), 'argument')
    checkedError(() => vcpu.start(null as never), 'argument')
    expect(checkedError(() => vcpu.start({ hlt: 5 as never }), 'argument').argument).toContain('hlt')
    checkedError(() => vcpu.start({}, { queued: [{ port: 70_000 }] }), 'argument')
    expect(vcpu.state).toBe('stopped')
  })

  test('takes an object with handle() for a handler', async () => {
    const vcpu = realModeGuest(vm, 'mov $0xf000, %ax; mov %ax, %ds; mov %eax, (8); hlt')
    vm.memslots.lookup(0)?.resize(MiB - 64 * KiB)
    const bus = {
      seen: [] as number[],
      handle({ gpa }: { gpa: number }) {
        this.seen.push(gpa)
      }
    }
    expect((await vcpu.start({ mmio: bus })).reason).toBe('hlt')
    expect(bus.seen).toEqual([0xf0008])
  })
})

/** Runs a separate process in which `vcpu` runs a guest that never exits, and returns how the process ended and its output. */
async function processWithVcpu(then: string): Promise<{ status: number | null; signal: string | null; stdout: string }> {
  const source = `
    import { Kvm, Mapping } from ${library}
    const vm = Kvm.open().createVm()
    const ram = Mapping.anonymous(4096)
    ram.write(0, new Uint8Array([0xfb, 0xeb, 0xfe]))
    vm.memslots.create({ gpa: 0, mapping: ram })
    const vcpu = vm.createVcpu().enter('real', { ip: 0 })
    void vcpu.start({})
    ${then}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'ignore'] })
  let stdout = ''
  child.stdout.on('data', (data) => (stdout += data))
  const [status, signal] = await once(child, 'close')
  return { status, signal, stdout }
}

test('a vCPU after unref() does not hold the process open', async (context) => {
  skipWhereSlow(context)
  const ended = await processWithVcpu("vcpu.unref(); setTimeout(() => console.log('timer'), 20)")
  expect(ended).toEqual({ status: 0, signal: null, stdout: 'timer\n' })
})

test.for([
  ['process.exit(3)', 3],
  ['throw new Error("uncaught")', 1]
] as const)('%s while a vCPU runs ends the process at once', async ([last, status], context) => {
  skipWhereSlow(context)
  expect(await processWithVcpu(`setTimeout(() => { ${last} }, 20)`)).toMatchObject({ status, signal: null })
})

test('VMs that are closed while their vCPUs run leave no thread and no descriptor', async () => {
  const count = inLab ? 20 : 300
  const before = { descriptors: 0, threads: 0 }
  for (let round = -5; round < count; round++) {
    if (round === 0) Object.assign(before, { descriptors: descriptors(), threads: threads().length })
    const other = kvm.createVm()
    const ram = Mapping.anonymous(4 * KiB)
    ram.write(0, new Uint8Array([0xfb, 0xeb, 0xfe]))
    other.memslots.create({ gpa: 0, mapping: ram })
    const running = other.createVcpu().enter('real', { ip: 0 }).start({})
    if (round % 3 === 0) await turn()
    other.close()
    ram.close()
    expect(await running).toEqual({ reason: 'stopped' })
  }
  expect({ descriptors: descriptors(), threads: threads().length }).toEqual(before)
})

test('a kick between two runs of start() is not swallowed by stop(): the next run answers it', async () => {
  const vcpu = realModeGuest(vm, endless)
  const running = vcpu.start({})
  await vcpu.pause()
  vcpu.kick()
  await vcpu.stop()
  await running
  expect(vcpu.run({ timeoutMs: patience }).reason).toBe('interrupted')
  expect(vcpu.run({ timeoutMs: 1 }).reason).toBe('timeout')
})

test('a handler for `interrupted` hears of kicks, and not of pause()', async () => {
  const vcpu = realModeGuest(vm, endless)
  let kicks = 0
  const running = vcpu.start({ interrupted: () => void kicks++ })
  await untilRunning(vcpu)
  await vcpu.pause()
  vcpu.resume()
  await untilRunning(vcpu)
  await vcpu.stop()
  expect(await running).toEqual({ reason: 'stopped' })
  expect(kicks).toBe(0)
})

test('an application processor begins with INIT and SIPI within one start()', async () => {
  vm.interrupts.createIrqchip()
  const ram = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('mov $65, %al; out %al, $0x10; 1: jmp 1b', { mode: 'real', at: 0x1000 }))
  // Intel SDM volume 3, 10.4.4: turn the local APIC on, send INIT to all others, then SIPI with vector 1.
  const boot = 'movl $0x1ff, 0xfee000f0; movl $0xc4500, 0xfee00300; mov $1000, %ecx; 1: loop 1b; movl $0xc4601, 0xfee00300; out %al, $0x11; 2: jmp 2b'
  ram.write(0x3000, assemble(boot, { mode: 'protected', at: 0x3000 }))
  const first = vm.createVcpu().enter('protected', { ip: 0x3000 })
  const second = vm.createVcpu()
  const waiting = second.start({})
  const sent = first.start({})
  expect(await sent).toMatchObject({ reason: 'io-out', port: 0x11 })
  expect(await waiting).toMatchObject({ reason: 'io-out', port: 0x10 })
})

describe('memory that the host cannot give', () => {
  test('is for a handler to mend, and the guest tries again', async () => {
    const g = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    page.write(0, new Uint8Array([42]))
    vm.memslots.create({ gpa: 0x20_0000, mapping: page })
    page.protect('none')
    const faults: MemoryError[] = []
    const { vcpu } = g
    // The read returns the error or, where the kernel reports more with that exit, throws; the guest is at its access.
    try {
      expect(g.read(0x20_0000)).toMatchObject({ reason: 'failed', exit: { reason: 'memory-fault' } })
    } catch (error) {
      expect(error).toMatchObject({ code: 'memory', errno: 'EFAULT' })
    }
    const end = await vcpu.start({
      memory: async (fault) => {
        faults.push(fault)
        await turn()
        page.protect('rw')
      }
    })
    expect(end.reason).toBe('io-out')
    expect(vcpu.registers.get().rax).toBe(42n)
    expect(faults).toHaveLength(1)
    expect(faults[0]).toMatchObject({ reason: 'memory', errno: 'EFAULT' })
    expect([undefined, 0x20_0000]).toContain(faults[0]!.gpa)
  })

  test('ends the run without a handler, or with one that throws', async () => {
    const page = Mapping.anonymous(4 * KiB)
    vm.memslots.create({ gpa: 0x20_0000, mapping: page })
    page.protect('none')
    const { vcpu } = Guest.create(vm)
    vcpu.registers.set({ rdi: 0x20_0000n })
    const end = vcpu.start({}).then(
      ({ reason }) => reason,
      ({ code }) => code
    )
    expect(['memory', 'memory-fault']).toContain(await end)
    const failing = vcpu.start({
      memory: () => {
        throw new Error('no more')
      }
    })
    await expect(failing).rejects.toThrow('no more')
  })
})
