import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { Kvm, Mapping, MiB, Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { importable, library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { descriptors, resident, threads } from '../support/process.js'
import { untilRunning } from '../support/running.js'
import { kvm, vm } from '../support/vm.js'
import { answer, spinning, worker } from '../support/worker.js'

test('closing the VM where it was made ends the runs of Workers', async () => {
  const vcpu = spinning(vm)
  const other = worker(`
    parentPort.postMessage('running')
    vm.vcpu(0).run()`)
  other.postMessage(vm.share())
  await answer(other)
  await sleep(20)
  const ended = answer(other)
  vm.close()
  expect(await ended).toEqual({ error: 'closed' })
  checkedError(() => vcpu.registers.get(), 'closed')
  await other.terminate()
})

test('messages to a Worker in a run do not end it, and do not lengthen its limit', async () => {
  spinning(vm)
  const other = worker(`
    parentPort.postMessage('running')
    const began = performance.now()
    const { reason } = vm.vcpu(0).run({ timeoutMs: 300 })
    parentPort.postMessage({ reason, took: performance.now() - began })`)
  other.postMessage(vm.share())
  await answer(other)
  const ended = answer(other)
  for (let message = 0; message < 20; message++) {
    other.postMessage(message)
    await sleep(5)
  }
  const { reason, took } = await ended
  expect(reason).toBe('timeout')
  expect(took).toBeGreaterThanOrEqual(299)
  await other.terminate()
})

test('a Worker may start() a vCPU, and its end stops it', async () => {
  const vcpu = spinning(vm)
  const other = worker(`
    void vm.vcpu(0).start({})
    parentPort.postMessage(vm.vcpu(0).state)`)
  other.postMessage(vm.share())
  expect(await answer(other)).toBe('running')
  await untilRunning(vcpu)
  // A vCPU on its way into the guest counts as running, too.
  await expect.poll(() => vm.memory.read(0x2000, 1)[0]).toBe(1)
  await other.terminate()
  expect(vcpu.registers.get().rbx).not.toBe(0n)
  expect(threads()).not.toContain('kvm-vcpu-0')
})

test.each(['await worker.terminate()', 'process.exit() in it', 'an uncaught error in it'])(
  '%s ends a Worker while it runs a guest, and what it held goes',
  async (how) => {
    const rounds = how.startsWith('await') ? 40 : 10
    const warmUps = 3
    const source = {
      'await worker.terminate()': 'run()',
      'process.exit() in it': 'setTimeout(() => process.exit(0), 5); vm.vcpu(0).start({})',
      'an uncaught error in it': 'setTimeout(() => { throw new Error("uncaught") }, 5); vm.vcpu(0).start({})'
    }[how] as string
    const before = { descriptors: 0, threads: 0, resident: 0 }
    for (let round = -warmUps; round < rounds; round++) {
      if (round === 0) {
        globalThis.gc?.()
        Object.assign(before, { descriptors: descriptors(), threads: threads().length, resident: resident() })
      }
      const other = kvm.createVm()
      spinning(other)
      const runner = worker(`
      const run = () => { parentPort.postMessage('running'); vm.vcpu(0).run(); parentPort.postMessage('ended') }
      parentPort.postMessage('attached')
      ${source}`)
      const messages: unknown[] = []
      runner.on('message', (message) => messages.push(message))
      runner.on('error', (error) => messages.push((error as Error).message))
      runner.postMessage(other.share())
      if (how.startsWith('await')) {
        while (!messages.includes('running')) await sleep(1)
        await sleep(round % 10)
        await runner.terminate()
        expect(messages).toEqual(['attached', 'running'])
      } else {
        await new Promise((resolve) => runner.once('exit', resolve))
        // The error may come before the message.
        expect(messages.sort()).toEqual(how.startsWith('an') ? ['attached', 'uncaught'] : ['attached'])
      }
      // No vCPU of the Worker is in the guest any more.
      expect(other.vcpu(0).registers.get().rip).toBeGreaterThan(0xfffn)
      other.close()
    }
    globalThis.gc?.()
    // There may be fewer: objects that earlier tests left to the collector may have gone meanwhile.
    expect(descriptors()).toBeLessThanOrEqual(before.descriptors)
    expect(threads().length).toBeLessThanOrEqual(before.threads)
    expect(resident() - before.resident).toBeLessThan(64 * MiB)
  }
)

test('worker.terminate() ends a run() that V8 has compiled for speed', async () => {
  const exits = 50_000
  const ram = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble(`mov $${exits}, %ecx; 1: out %al, $0x10; dec %ecx; jnz 1b; sti; 2: jmp 2b`, { mode: 'real', at: 0x1000 }))
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const other = worker(`
    const vcpu = vm.vcpu(0)
    for (let exits = 1; ; exits++) {
      vcpu.run()
      if (exits === ${exits}) parentPort.postMessage(exits)
    }`)
  other.postMessage(vm.share())
  expect(await answer(other)).toBe(exits)
  await untilRunning(vcpu)
  await other.terminate()
  expect(vcpu.run({ timeoutMs: 1 })).toEqual({ reason: 'timeout' })
})

test('a Worker that ends takes nothing from those who still hold its VM', async () => {
  const maker = new Worker(
    `const { parentPort } = require('node:worker_threads')
     import(${library}).then(({ Kvm, Mapping }) => {
       const vm = (globalThis.vm = Kvm.open().createVm())
       vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
       vm.memory.write(0, new Uint8Array([5]))
       parentPort.postMessage(vm.share())
       setInterval(() => {}, 1000)
     })`,
    { eval: true }
  )
  const same = Vm.attach(await answer(maker))
  await maker.terminate()
  expect(same.closed).toBe(false)
  expect(same.memory.read(0, 1)[0]).toBe(5)
  same.close()
  expect(Kvm.open).toBeTypeOf('function')
})

test('a handle that is collected while a Worker runs the guest takes nothing from it', async () => {
  const before = descriptors()
  const runner = worker(`
    parentPort.postMessage('running')
    parentPort.postMessage(vm.vcpu(0).run({ timeoutMs: 500 }).reason)`)
  const hand = () => {
    const other = kvm.createVm()
    spinning(other)
    runner.postMessage(other.share())
    // The VM is held until the Worker has attached it.
    return answer(runner).then(() => other.memslots.length)
  }
  expect(await hand()).toBe(1)
  const ended = answer(runner)
  for (let round = 0; round < 10; round++) {
    globalThis.gc?.()
    await sleep(10)
  }
  expect(await ended).toBe('timeout')
  await runner.terminate()
  globalThis.gc?.()
  await sleep(20)
  expect(descriptors()).toBeLessThanOrEqual(before)
})

test('transactions of two environments at once keep both tables whole', async () => {
  const swaps = 200
  const source = `
    const pair = [library.Mapping.anonymous(4096), library.Mapping.anonymous(4096)].map((mapping, index) => {
      mapping.fill(index + 1)
      return vm.memslots.create({ gpa: BASE + index * 0x10000, mapping })
    })
    for (let round = 0; round < ${swaps}; round++)
      vm.memslots.transaction((tx) => {
        const [one, other] = pair.map(({ gpa }) => gpa)
        tx.move(pair[0], other)
        tx.move(pair[1], one)
      })
    parentPort.postMessage(pair.map(({ id, gpa }) => ({ id, gpa })))
    setInterval(() => {}, 1000)`
  const workers = [0x100_0000, 0x200_0000].map((base) => worker(source.replace('BASE', String(base))))
  for (const each of workers) each.postMessage(vm.share())
  const pairs = (await Promise.all(workers.map(answer))) as { id: number; gpa: number }[][]
  expect(vm.memslots.length).toBe(4)
  for (const { id, gpa } of pairs.flat()) expect(vm.memslots.lookup(gpa)?.id).toBe(id)
  // The number of swaps is even: each slot is where it began, in the kernel too.
  expect([...vm.memslots].map(({ gpa }) => vm.memory.read(gpa, 1)[0])).toEqual([1, 2, 1, 2])
  expect(new Set(pairs.flat().map(({ id }) => id)).size).toBe(4)
  await Promise.all(workers.map((each) => each.terminate()))
})

test('a Worker that ends between a subscription and the socket for it leaves no descriptor', async () => {
  const native = importable('lib/abi/native.js')
  const ending = async (source: string) => {
    const worker = new Worker(`import(${native}).then(({ native }) => { globalThis.listener = native.watchEventfds().subscribe(); ${source} })`, {
      eval: true
    })
    await once(worker, 'exit')
  }
  await ending('')
  const before = descriptors()
  for (let round = 0; round < 5; round++) await ending('')
  // The runtime closes the descriptor that it holds; by then the number may belong to another file.
  for (let round = 0; round < 5; round++) await ending("new (require('node:net').Socket)({ fd: listener }).unref()")
  expect(descriptors()).toBe(before)
})
