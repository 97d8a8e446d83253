import { AsyncLocalStorage } from 'node:async_hooks'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type IoEventfd, Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { library, testing } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { kernelIsAtLeast } from '../support/kernel.js'
import { patience } from '../support/patience.js'
import { descriptors } from '../support/process.js'
import { inLab } from '../support/skip.js'
import { Uncaught } from '../support/uncaught.js'
import { kvm, vm } from '../support/vm.js'

/** A vCPU about to run real-mode code at 0x1000, whose interrupt vector `vector` leads to 0x2000. */
function realMode(source: string, handler?: { vector: number; source: string }, machine: Vm = vm): Vcpu {
  const ram = Mapping.anonymous(MiB)
  machine.memslots.create({ gpa: 0, mapping: ram, size: MiB - 64 * 1024 })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  if (handler) {
    ram.write(0x2000, assemble(handler.source, { mode: 'real', at: 0x2000 }))
    ram.write(handler.vector * 4, new Uint8Array(new Uint16Array([0x2000, 0]).buffer))
  }
  return machine.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
}

describe('ioeventfd', () => {
  test('a write that matches is an event and no exit; any other is an exit', async () => {
    const any = vm.ioeventfd({ port: 0x10, size: 1 })
    const matched = vm.ioeventfd({ port: 0x20, size: 2, datamatch: 0xbeefn })
    const memory = vm.ioeventfd({ gpa: 0xf0000, size: 4 })
    const vcpu = realMode(`out %al, $0x10; out %al, $0x10; mov $0xbeef, %ax; out %ax, $0x20; mov $0xdead, %ax; out %ax, $0x20
      mov $0xf000, %ax; mov %ax, %ds; mov %eax, (0); mov %ax, (0); hlt`)
    const counts = Promise.all([once(any, 'event'), once(matched, 'event'), once(memory, 'event')])
    expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x20, data: new Uint8Array([0xad, 0xde]) })
    expect(vcpu.run()).toMatchObject({ reason: 'mmio', gpa: 0xf0000, size: 2 })
    expect(vcpu.run().reason).toBe('hlt')
    // The two writes may have been heard one by one.
    const [[first], [second], [third]] = await counts
    expect([1, 2]).toContain(first)
    expect([second, third]).toEqual([1, 1])
  })

  test('counts add up while nobody listens, and every one is told', async () => {
    const doorbell = vm.ioeventfd({ port: 0x10 })
    const vcpu = realMode('mov $5000, %cx; 1: out %al, $0x10; loop 1b; hlt')
    let heard = 0
    doorbell.on('event', (count) => {
      heard += count
    })
    expect(vcpu.run().reason).toBe('hlt')
    while (heard < 5000) await once(doorbell, 'event')
    expect(heard).toBe(5000)
  })

  test('ends with close() as an async iterable', async () => {
    const doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
    const vcpu = realMode('out %al, $0x10; hlt')
    let heard = 0
    const listening = (async () => {
      for await (const count of doorbell) {
        heard += count
        doorbell.close()
      }
    })()
    expect(vcpu.run().reason).toBe('hlt')
    await listening
    expect(heard).toBe(1)
    expect(doorbell.closed).toBe(true)
    for await (const count of doorbell) throw new Error(`${count} after close`)
  })

  test('its writes are exits again once it is closed, and its place is free; the end of the VM closes all', () => {
    const doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
    expect(checkedError(() => vm.ioeventfd({ port: 0x10, size: 1 }), 'ioctl').errno).toBe('EEXIST')
    doorbell.close()
    doorbell.close()
    const vcpu = realMode('out %al, $0x10; hlt')
    expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x10 })
    const again = vm.ioeventfd({ port: 0x10, size: 1 })
    const line = vm.ioeventfd({ gpa: 0xf0000, size: 8 })
    vm.close()
    expect([again.closed, line.closed]).toEqual([true, true])
  })

  test.each([
    [{}, 'port'],
    [{ port: 1, gpa: 1 }, 'port'],
    [{ port: 0x1_0000 }, 'port'],
    [{ gpa: -1 }, 'gpa'],
    [{ port: 1, size: 3 }, 'size'],
    [{ port: 1, size: 1, datamatch: 1 }, 'datamatch'],
    [{ port: 1, datamatch: 1n }, 'datamatch'],
    [{ port: 1, match: 1n }, 'match']
  ])('refuses %o', (options, argument) => {
    const before = descriptors()
    expect(checkedError(() => vm.ioeventfd(options as never), 'argument').argument).toBe(argument)
    expect(descriptors()).toBe(before)
  })

  test('a listener that throws does not take the news from the others, nor from a loop over the same counts', async () => {
    using uncaught = new Uncaught()
    const first = vm.ioeventfd({ port: 0x10, size: 1 })
    const second = vm.ioeventfd({ port: 0x11, size: 1 })
    const vcpu = realMode('out %al, $0x10; out %al, $0x11; hlt')
    first.once('event', () => {
      throw new Error('of the first')
    })
    const looped = first[Symbol.asyncIterator]().next()
    const heard = once(second, 'event')
    expect(vcpu.run().reason).toBe('hlt')
    expect(await heard).toEqual([1])
    expect(await looped).toEqual({ done: false, value: 1 })
    while (uncaught.messages.length === 0) await turn()
    expect(uncaught.messages).toEqual(['of the first'])
  })

  test('for a loop that is slow the counts add up: one waits, however often it was woken', async () => {
    const doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
    const vcpu = realMode('1: out %al, $0x10; out %al, $0x20; jmp 1b')
    const counts = doorbell[Symbol.asyncIterator]()
    const next = counts.next()
    let heard = 0
    let events = 0
    doorbell.on('event', (count) => {
      heard += count
      events++
    })
    while (events < 20) {
      expect(vcpu.run()).toMatchObject({ port: 0x20 })
      await turn()
    }
    const { value: first } = await next
    const { value: rest } = await counts.next()
    expect(first + rest).toBe(heard)
    // After close() the loop gets one more count: of the events that came before it.
    const before = heard
    while (heard === before) {
      vcpu.run()
      await turn()
    }
    doorbell.close()
    expect(await counts.next()).toEqual({ done: false, value: heard - before })
    expect(await counts.next()).toEqual({ done: true, value: undefined })
  })

  test('each is heard in the async context that it was made in, as is a run by its handlers', async () => {
    const storage = new AsyncLocalStorage<string>()
    const seen: unknown[] = []
    const note = (what: string) => () => seen.push([what, storage.getStore()])
    const [first, second] = ['first', 'second'].map((name, port) =>
      storage.run(name, () => vm.ioeventfd({ port, size: 1 }).once('event', note(name)).once('close', note(name)))
    ) as [IoEventfd, IoEventfd]
    const vcpu = realMode('out %al, $0; out %al, $1; out %al, $0x20; hlt')
    const both = Promise.all([once(first, 'event'), once(second, 'event')])
    expect((await storage.run('run', () => vcpu.start({ 'io-out': note('run') }))).reason).toBe('hlt')
    await both
    storage.run('elsewhere', () => vm.close())
    expect(seen.sort()).toEqual(['first', 'first', 'run', 'second', 'second'].map((name) => [name, name]))
  })

  test('holds the process open until unref() or close(), and an exit while it listens is clean', () => {
    const program = (end: string) =>
      `import { Kvm } from ${library}; const vm = Kvm.open().createVm(); const doorbell = vm.ioeventfd({ port: 1, size: 1 })
      doorbell.on('event', () => {}); const timer = setTimeout(() => { console.log('still here'); process.exit(0) }, 2000); timer.unref(); ${end}`
    const outcome = (end: string) => {
      const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program(end)], {
        encoding: 'utf8',
        timeout: patience
      })
      return { stdout, stderr, status }
    }
    expect(outcome('doorbell.unref()')).toEqual({ stdout: '', stderr: '', status: 0 })
    expect(outcome('process.exit(3)')).toEqual({ stdout: '', stderr: '', status: 3 })
    // Starting a process takes many seconds on an emulated machine, and the remaining checks do not depend on the machine.
    if (inLab) return
    expect(outcome('')).toEqual({ stdout: 'still here\n', stderr: '', status: 0 })
    expect(outcome('doorbell.unref().ref().close()')).toEqual({ stdout: '', stderr: '', status: 0 })
  })

  test('a Worker that ends while it listens leaves nothing', async () => {
    const source = `const { parentPort } = require('node:worker_threads')
      Promise.all([import(${library}), import(${testing})]).then(([{ Kvm, Mapping }, { assemble }]) => {
        const vm = Kvm.open().createVm()
        vm.interrupts.createIrqchip()
        globalThis.held = [vm.ioeventfd({ port: 1, size: 1 }), vm.interrupts.irqfd({ gsi: 5, resample: true }), vm.ioeventfd({ gpa: 0x1000, size: 1 })]
        parentPort.postMessage('ready')
      })`
    const round = async () => {
      const worker = new Worker(source, { eval: true })
      await once(worker, 'message')
      await worker.terminate()
    }
    await round()
    const before = descriptors()
    for (let made = 0; made < (inLab ? 1 : 5); made++) await round()
    expect(descriptors()).toBe(before)
  })
})

describe('with the interrupt controllers in the kernel', () => {
  // Both PICs answer from vector 0x20 and 0x28 on, and let everything through (8259A data sheet).
  const programPics = `mov $0x11, %al; out %al, $0x20; out %al, $0xa0; mov $0x20, %al; out %al, $0x21; mov $0x28, %al; out %al, $0xa1
    mov $4, %al; out %al, $0x21; mov $2, %al; out %al, $0xa1; mov $1, %al; out %al, $0x21; out %al, $0xa1; xor %al, %al; out %al, $0x21; out %al, $0xa1`
  const waiting = `${programPics}; out %al, $0x80; sti; 1: hlt; jmp 1b`
  const answering = (name: number) => `mov $${name}, %al; out %al, $0x81; mov $0x20, %al; out %al, $0xa0; out %al, $0x20; iret`

  /** Runs to the guest's `out` to a port, and returns the value that it wrote. */
  function runTo(vcpu: Vcpu, port: number): number | undefined {
    const exit = vcpu.run({ timeoutMs: patience })
    expect(exit).toMatchObject({ reason: 'io-out', port })
    return exit.reason === 'io-out' ? exit.data[0] : undefined
  }

  function interruptible(gsi: number): Vcpu {
    vm.interrupts.createIrqchip()
    const vcpu = realMode(waiting, { vector: 0x20 + gsi, source: answering(gsi) })
    runTo(vcpu, 0x80)
    return vcpu
  }

  test('a line that is raised and lowered interrupts the guest', () => {
    const vcpu = interruptible(4)
    vm.interrupts.setLine(4, true)
    vm.interrupts.setLine(4, false)
    expect(runTo(vcpu, 0x81)).toBe(4)
    expect(vcpu.run({ timeoutMs: 50 }).reason).toBe('timeout')
  })

  test('an irqfd interrupts the guest at each trigger, until it is closed', () => {
    const vcpu = interruptible(5)
    const line = vm.interrupts.irqfd({ gsi: 5 })
    for (let round = 0; round < 3; round++) {
      line.trigger()
      expect(runTo(vcpu, 0x81)).toBe(5)
    }
    line.close()
    line.close()
    checkedError(() => line.trigger(), 'closed')
    expect(vcpu.run({ timeoutMs: 50 }).reason).toBe('timeout')
  })

  test('a resampled irqfd tells of the end of the interrupt', async () => {
    const vcpu = interruptible(10)
    const line = vm.interrupts.irqfd({ gsi: 10, resample: true })
    const ended = once(line, 'event')
    line.trigger()
    expect(runTo(vcpu, 0x81)).toBe(10)
    let told = false
    void ended.then(() => (told = true))
    // This runs until the guest has signalled the interrupt's end to both PICs.
    for (; !told; await sleep(1)) vcpu.run({ timeoutMs: 20 })
    expect(await ended).toEqual([1])
  })

  test('the timer interrupts the guest', () => {
    vm.interrupts.createIrqchip()
    vm.interrupts.createPit()
    // Channel 0, mode 2, every 11932 ticks of 1.193 MHz: 100 Hz (8254 data sheet).
    const vcpu = realMode(
      `${programPics}; mov $0x34, %al; out %al, $0x43; mov $0x9c, %al; out %al, $0x40; mov $0x2e, %al; out %al, $0x40; sti; 1: hlt; jmp 1b`,
      {
        vector: 0x20,
        source: answering(0)
      }
    )
    for (let tick = 0; tick < 3; tick++) expect(runTo(vcpu, 0x81)).toBe(0)
  })

  test('routes lead an interrupt to another pin', () => {
    const vcpu = interruptible(6)
    vm.interrupts.setRouting([
      { gsi: 3, irqchip: 'pic-master', pin: 6 },
      { gsi: 30, msi: { address: 0xfee0_0000, data: 0x40 } }
    ])
    const line = vm.interrupts.irqfd({ gsi: 3 })
    line.trigger()
    expect(runTo(vcpu, 0x81)).toBe(6)
    expect(checkedError(() => vm.interrupts.setRouting([{ gsi: 3, irqchip: 'pic-master', pin: 99 }]), 'ioctl').errno).toBe('EINVAL')
    expect(checkedError(() => vm.interrupts.setRouting([{ gsi: 3, irqchip: 'pic' as never, pin: 1 }]), 'argument').argument).toBe('irqchip')
  })

  test('a message reaches the local APIC once software has turned it on', () => {
    vm.interrupts.createIrqchip()
    const vcpu = realMode('sti; 1: hlt; jmp 1b', { vector: 0x40, source: 'mov $64, %al; out %al, $0x81; iret' })
    const lapic = vcpu.lapic.get()
    const view = new DataView(lapic.buffer, lapic.byteOffset)
    // This sets the enable bit of the spurious-interrupt vector register (Intel SDM volume 3, 12.9).
    view.setUint32(0xf0, 0x1ff, true)
    vcpu.lapic.set(lapic)
    expect(new DataView(vcpu.lapic.get().slice().buffer).getUint32(0xf0, true)).toBe(0x1ff)
    expect(vm.interrupts.signalMsi({ address: 0xfee0_0000, data: 0x40 })).toBe(true)
    expect(runTo(vcpu, 0x81)).toBe(64)
  })

  test('what cannot be done says why', () => {
    // Linux 6.1 makes a timer whose interrupts reach nothing; 6.12 and later refuse.
    if (kernelIsAtLeast(6, 12)) expect(checkedError(() => vm.interrupts.createPit(), 'ioctl').message).toContain('createIrqchip() first')
    checkedError(() => vm.interrupts.setLine(1, true), 'ioctl')
    // Whether an irqfd that leads nowhere is refused depends on the kernel: Linux 6.1 takes it.
    checkedError(() => vm.interrupts.signalMsi({ address: 0xfee0_0000, data: 1 }), 'ioctl')
    expect(checkedError(() => vm.interrupts.irqfd({ gsi: -1 }), 'argument').argument).toBe('gsi')
    vm.interrupts.createIrqchip()
    expect(checkedError(() => vm.interrupts.createIrqchip(), 'ioctl').errno).toBe('EEXIST')
    using late = kvm.createVm()
    late.createVcpu()
    expect(checkedError(() => late.interrupts.createIrqchip(), 'ioctl').message).toContain('before the first vCPU')
    vm.close()
    for (const use of [
      () => vm.interrupts.createIrqchip(),
      () => vm.interrupts.createPit(),
      () => vm.interrupts.irqfd({ gsi: 1 }),
      () => vm.ioeventfd({ port: 1 }),
      () => vm.interrupts.setLine(1, true)
    ])
      checkedError(use, 'closed')
  })
})

describe('without controllers in the kernel', () => {
  test('an interrupt is injected when the guest takes one', () => {
    const vcpu = realMode('cli; out %al, $0x80; sti; nop; 1: jmp 1b', { vector: 0x33, source: 'mov $51, %al; out %al, $0x81; iret' })
    expect(vcpu.run({ timeoutMs: patience })).toMatchObject({ reason: 'io-out', port: 0x80 })
    expect(vcpu.events.readyForInterrupt).toBe(false)
    vcpu.events.requestInterruptWindow(true)
    expect(vcpu.run({ timeoutMs: patience }).reason).toBe('irq-window-open')
    expect(vcpu.events.readyForInterrupt).toBe(true)
    vcpu.events.requestInterruptWindow(false)
    vcpu.events.interrupt(0x33)
    expect(vcpu.run({ timeoutMs: patience })).toMatchObject({ reason: 'io-out', port: 0x81, data: new Uint8Array([51]) })
    expect(checkedError(() => vcpu.events.interrupt(256), 'argument').argument).toBe('vector')
    vcpu.close()
    checkedError(() => vcpu.events.interrupt(1), 'closed')
    checkedError(() => vcpu.events.nmi(), 'closed')
  })

  test('a non-maskable interrupt comes even while interrupts are off', () => {
    const vcpu = realMode('cli; out %al, $0x80; 1: jmp 1b', { vector: 2, source: 'mov $2, %al; out %al, $0x81; hlt' })
    expect(vcpu.run({ timeoutMs: patience })).toMatchObject({ reason: 'io-out', port: 0x80 })
    vcpu.events.nmi()
    expect(vcpu.run({ timeoutMs: patience })).toMatchObject({ reason: 'io-out', port: 0x81, data: new Uint8Array([2]) })
  })
})
