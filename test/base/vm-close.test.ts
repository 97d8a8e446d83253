import { once } from 'node:events'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type IoEventfd, Mapping } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import { library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { ownDescriptors } from '../support/process.js'
import { skipWhereSlow } from '../support/skip.js'
import { Uncaught } from '../support/uncaught.js'
import { kvm, vm } from '../support/vm.js'

test('a listener that throws stops nothing: all is closed, and its error is uncaught', async () => {
  using uncaught = new Uncaught()
  const sources = [vm.ioeventfd({ port: 0x10, size: 1 }), vm.ioeventfd({ port: 0x11, size: 1 })]
  const vcpu = vm.createVcpu()
  const ended = sources.map((source) => source[Symbol.asyncIterator]().next())
  for (const source of sources)
    source.prependListener('close', () => {
      throw new Error('of a listener')
    })
  vm.close()
  expect([vm.closed, vcpu.closed, ...sources.map(({ closed }) => closed)]).toEqual([true, true, true, true])
  expect(await Promise.all(ended)).toEqual([
    { done: true, value: undefined },
    { done: true, value: undefined }
  ])
  while (uncaught.messages.length < 2) await turn()
  expect(uncaught.messages).toEqual(['of a listener', 'of a listener'])
})

test('listeners may look at the VM, close it and others, and are refused where they add anything', () => {
  const ram = Mapping.anonymous(4096)
  ram.write(0, new Uint8Array([0xf4]))
  vm.memslots.create({ gpa: 0x1000, mapping: ram })
  const [first, second] = [vm.ioeventfd({ port: 0x10, size: 1 }), vm.ioeventfd({ port: 0x11, size: 1 })]
  const seen: unknown[] = []
  first.once('close', () => {
    second.close()
    first.close()
    vm.close()
    seen.push(vm.memory.read(0x1000, 1)[0])
    for (const add of [() => vm.ioeventfd({ port: 0x12 }), () => vm.interrupts.irqfd({ gsi: 1 }), () => vm.createVcpu(), () => vm.dirtyLog()])
      seen.push(checkedError(add, 'closed').message)
  })
  second.once('close', () => seen.push('second'))
  vm.close()
  expect(vm.closed).toBe(true)
  expect(seen).toEqual(['second', 0xf4, ...Array(4).fill('this VM is being closed')])
})

test('a step that fails is told after the others were taken', () => {
  const log = vm.dirtyLog({ mode: 'bitmap' })
  const vcpu = vm.createVcpu()
  const doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
  log.close = () => {
    throw new Error('of the log')
  }
  expect(() => vm.close()).toThrow('of the log')
  vm.close()
  expect([vm.closed, vcpu.closed, doorbell.closed]).toEqual([true, true, true])
})

test('several steps that fail are told together', () => {
  const steps = [vm.createVcpu(), vm.createVcpu()]
  for (const [place, step] of steps.entries())
    step.close = () => {
      throw new Error(`of step ${place}`)
    }
  let thrown: unknown
  try {
    vm.close()
  } catch (error) {
    thrown = error
  }
  expect(thrown).toBeInstanceOf(AggregateError)
  expect((thrown as AggregateError).errors.map(({ message }) => message)).toEqual(['of step 0', 'of step 1'])
  expect(vm.closed).toBe(true)
})

test("a Worker closes what it made of a VM, and ends, after the VM's creator closed it", async (context) => {
  skipWhereSlow(context)
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
    import(${library}).then(({ Vm }) => {
      const vm = Vm.attach(workerData), doorbell = vm.ioeventfd({ port: 1, size: 1 })
      parentPort.postMessage('ready')
      parentPort.once('message', () => { const before = vm.closed; vm.close(); parentPort.postMessage([before, doorbell.closed]) })
    })`,
    { eval: true, workerData: vm.share() }
  )
  await once(worker, 'message')
  vm.close()
  // Both are awaited at once, because the last message may come together with the end.
  const told = Promise.all([once(worker, 'message'), once(worker, 'exit')])
  worker.postMessage('close')
  expect(await told).toEqual([[[true, true]], [0]])
})

describe('a VM that is dropped with an ioeventfd', () => {
  async function drop(use: (doorbell: IoEventfd) => unknown): Promise<number> {
    using other = kvm.createVm()
    // The thread that watches comes with the first ioeventfd, and stays.
    other.ioeventfd({ port: 1 })
    const before = ownDescriptors()
    for (let made = 0; made < 10; made++) use(kvm.createVm().ioeventfd({ port: 1, size: 1 }))
    for (let round = 0; round < 30 && ownDescriptors() > before; round++) {
      globalThis.gc?.()
      await sleep(1)
    }
    return ownDescriptors() - before
  }

  test('is collected when that keeps nothing alive', async () => {
    expect(await drop((doorbell) => doorbell.unref())).toBeLessThanOrEqual(0)
    expect(await drop((doorbell) => doorbell.unref()[Symbol.asyncIterator]().next())).toBeLessThanOrEqual(0)
  })

  test('is kept as long as that keeps the process alive', async () => {
    const dropped: WeakRef<IoEventfd>[] = []
    expect(await drop((doorbell) => dropped.push(new WeakRef(doorbell.unref().ref())))).toBeGreaterThan(0)
    expect(dropped.map((reference) => reference.deref()?.closed)).toEqual(Array(10).fill(false))
    for (const reference of dropped) reference.deref()?.close()
  })
})
