import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { assemble, KiB, Kvm, Mapping, MiB, type Vcpu, Vm } from 'node-kvm'
import { expect, test } from 'vitest'
import { checkedError } from './support/errors.js'
import { descriptors, resident, threads } from './support/process.js'
import { untilRunning } from './support/running.js'
import { inLab, skipWhereSlow } from './support/skip.js'
import { kvm, vm } from './support/vm.js'
import { answer, library, worker } from './support/worker.js'

const count = (whole: number, lab: number) => (inLab ? lab : whole)

function spinning(target = vm): Vcpu {
  const ram = Mapping.anonymous(2 * MiB)
  target.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('sti; 1: inc %ebx; movb $1, (0x2000); jmp 1b', { mode: 'real', at: 0x1000 }))
  return target.createVcpu().enter('real', { ip: 0x1000 })
}

test('a VM attached in a Worker has its memslots, memory and vCPUs', async () => {
  const ram = Mapping.memfd(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('mov (0x2000), %al; out %al, $0x10; hlt', { mode: 'real', at: 0x1000 }))
  const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
  const other = worker(`
    vm.write(0x2000, new Uint8Array([42]))
    const { data } = vm.vcpu(0).run()
    const [slot] = vm.memslots
    slot.move(0x800000)
    const more = vm.memslots.create({ gpa: 0, mapping: library.Mapping.anonymous(4096) })
    parentPort.postMessage({ value: data[0], kind: slot.mapping.kind, slot: slot.toJSON(), more: more.id, table: vm.memslots.toJSON() })
    setInterval(() => {}, 1000)`)
  other.postMessage(vm.share())
  const seen = await answer(other)
  expect(seen).toMatchObject({ value: 42, kind: 'memfd', slot: { id: 0, gpa: 0x80_0000, hva: ram.address }, more: 1 })
  expect(ram.read(0x2000, 1)[0]).toBe(42)
  // This environment's table follows, and so does the object it has.
  expect(vm.memslots.toJSON()).toEqual(seen.table)
  expect(vm.memslots.lookup(0x80_0000)?.mapping).toBe(ram)
  const foreign = vm.memslots.lookup(0)
  expect(foreign).toMatchObject({ id: 1, size: 4 * KiB })
  await other.terminate()
  // Its memory is held by the slot.
  vm.write(0, new Uint8Array([1]))
  expect(vm.read(0, 1)[0]).toBe(1)
  foreign?.delete()
  expect(vm.memslots.length).toBe(1)
  expect(vcpu.closed).toBe(false)
})

test('slots of one environment that another deleted are told so', async () => {
  const slot = vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4 * KiB) })
  const same = Vm.attach(vm.share())
  same.memslots.lookup(0)?.delete()
  expect(vm.memslots.length).toBe(0)
  expect(slot.deleted).toBe(true)
  checkedError(() => slot.move(0x1000), 'closed')
  slot.delete()
  expect(vm.memslots.create({ gpa: 0, mapping: slot.mapping }).id).toBe(0)
  expect(checkedError(() => same.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }), 'overlap').message).toContain('slot 0')
  same.close()
  expect(vm.closed).toBe(false)
  expect(vm.memslots.length).toBe(1)
})

test('changes of another environment are told to whoever watches here', () => {
  const same = Vm.attach(vm.share())
  using log = vm.dirtyLog()
  log.collect()
  same.memslots.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(8 * KiB) })
  expect(log.collect()).toEqual([{ gpa: 0x10_0000, size: 8 * KiB }])
  expect(log.collect()).toEqual([])
  same.memslots.lookup(0x10_0000)?.move(0x20_0000)
  expect(log.collect()).toEqual([{ gpa: 0x20_0000, size: 8 * KiB }])
  same.close()
})

test('a token serves once, and not after close', () => {
  const token = vm.share()
  const same = Vm.attach(token)
  checkedError(() => Vm.attach(token), 'argument')
  for (const none of [undefined, null, 5, {}, { nodeKvmVm: 5 }, { nodeKvmVm: -1n }, { nodeKvmVm: 1n << 70n }])
    checkedError(() => Vm.attach(none as never), 'argument')
  const late = vm.share()
  vm.close()
  checkedError(() => Vm.attach(late), 'closed')
  expect(same.closed).toBe(true)
  checkedError(() => same.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }), 'closed')
  checkedError(() => vm.share(), 'closed')
})

test('two Workers run a vCPU each; registers of the other are refused, kicks arrive, a second runner is refused', async () => {
  const first = spinning()
  vm.write(0x1800, assemble('sti; 1: jmp 1b', { mode: 'real', at: 0x1800 }))
  const second = vm.createVcpu().enter('real', { ip: 0x1800 })
  const runner = `
    parentPort.postMessage('running')
    const exit = vm.vcpu(ID).run()
    parentPort.postMessage(exit.reason)`
  const workers = [0, 1].map((id) => worker(runner.replace('ID', String(id))))
  for (const each of workers) each.postMessage(vm.share())
  expect(await Promise.all(workers.map(answer))).toEqual(['running', 'running'])
  await untilRunning(first)
  await untilRunning(second)
  // On its way into the guest it is running, too.
  await expect.poll(() => vm.read(0x2000, 1)[0], { timeout: 30_000 }).toBe(1)
  checkedError(() => first.run(), 'busy')
  checkedError(() => first.start({}), 'busy')
  const answers = Promise.all(workers.map(answer))
  first.kick()
  second.kick()
  expect(await answers).toEqual(['interrupted', 'interrupted'])
  expect(first.getRegisters().rbx).not.toBe(0n)
  await Promise.all(workers.map((each) => each.terminate()))
})

test('closing the VM where it was made ends the runs of Workers', async (context) => {
  skipWhereSlow(context)
  const vcpu = spinning()
  const other = worker(`
    parentPort.postMessage('running')
    vm.vcpu(0).run()`)
  other.postMessage(vm.share())
  await answer(other)
  await sleep(20)
  const ended = answer(other)
  vm.close()
  expect(await ended).toEqual({ error: 'closed' })
  checkedError(() => vcpu.getRegisters(), 'closed')
  await other.terminate()
})

test('messages to a Worker in a run do not end it, and do not lengthen its limit', async (context) => {
  skipWhereSlow(context)
  spinning()
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
  const vcpu = spinning()
  const other = worker(`
    void vm.vcpu(0).start({})
    parentPort.postMessage(vm.vcpu(0).state)`)
  other.postMessage(vm.share())
  expect(await answer(other)).toBe('running')
  await untilRunning(vcpu)
  // On its way into the guest it is running, too.
  await expect.poll(() => vm.read(0x2000, 1)[0], { timeout: 30_000 }).toBe(1)
  await other.terminate()
  expect(vcpu.getRegisters().rbx).not.toBe(0n)
  expect(threads()).not.toContain('kvm-vcpu-0')
})

test.each(['await worker.terminate()', 'process.exit() in it', 'an uncaught error in it'])(
  '%s while it runs a guest ends it, and what it held goes',
  async (how) => {
    const rounds = how.startsWith('await') ? count(40, 2) : count(10, 1)
    const warmUps = count(3, 1)
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
      // Nothing of it is in the guest any more.
      expect(other.vcpu(0).getRegisters().rip).toBeGreaterThan(0xfffn)
      other.close()
    }
    globalThis.gc?.()
    // Fewer: what earlier tests left to the collector went meanwhile.
    expect(descriptors()).toBeLessThanOrEqual(before.descriptors)
    expect(threads().length).toBeLessThanOrEqual(before.threads)
    expect(resident() - before.resident).toBeLessThan(64 * MiB)
  }
)

test('worker.terminate() ends a run() that V8 has compiled for speed', async (context) => {
  skipWhereSlow(context)
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

test('a Worker that ends takes nothing from those who still hold its VM', async (context) => {
  skipWhereSlow(context)
  const maker = new Worker(
    `const { parentPort } = require('node:worker_threads')
     import(${library}).then(({ Kvm, Mapping }) => {
       const vm = (globalThis.vm = Kvm.open().createVm())
       vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
       vm.write(0, new Uint8Array([5]))
       parentPort.postMessage(vm.share())
       setInterval(() => {}, 1000)
     })`,
    { eval: true }
  )
  const same = Vm.attach(await answer(maker))
  await maker.terminate()
  expect(same.closed).toBe(false)
  expect(same.read(0, 1)[0]).toBe(5)
  same.close()
  expect(Kvm.open).toBeTypeOf('function')
})

test('a handle that is collected while a Worker runs the guest takes nothing from it', async (context) => {
  skipWhereSlow(context)
  const before = descriptors()
  const runner = worker(`
    parentPort.postMessage('running')
    parentPort.postMessage(vm.vcpu(0).run({ timeoutMs: 500 }).reason)`)
  const hand = () => {
    const other = kvm.createVm()
    spinning(other)
    runner.postMessage(other.share())
    // Held until the Worker has attached it.
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
  const swaps = count(200, 10)
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
  // An even number of swaps: each is where it began, in the kernel too.
  expect([...vm.memslots].map(({ gpa }) => vm.read(gpa, 1)[0])).toEqual([1, 2, 1, 2])
  expect(new Set(pairs.flat().map(({ id }) => id)).size).toBe(4)
  await Promise.all(workers.map((each) => each.terminate()))
})

test('a Worker that ends between a subscription and the socket for it leaves no descriptor', async () => {
  const native = JSON.stringify(new URL('../dist/lib/abi/native.js', import.meta.url).href)
  const ending = async (source: string) => {
    const worker = new Worker(`import(${native}).then(({ native }) => { globalThis.listener = native.watchEventfds().subscribe(); ${source} })`, {
      eval: true
    })
    await once(worker, 'exit')
  }
  await ending('')
  const before = descriptors()
  for (let round = 0; round < 5; round++) await ending('')
  // The runtime closes what it holds, and what is under that number by then is another's.
  for (let round = 0; round < 5; round++) await ending("new (require('node:net').Socket)({ fd: listener }).unref()")
  expect(descriptors()).toBe(before)
})
