import { spawnSync } from 'node:child_process'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { KiB, Mapping, MiB } from 'node-kvm'
import { type TraceEvent, trace } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { beforeEach, describe, expect, test } from 'vitest'
import { library, observe } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { needsRoot } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { descriptors, ownDescriptors, threads } from '../support/process.js'
import { skip } from '../support/skip.js'
import { needsTracing, ofKind } from '../support/tracing.js'
import { vm } from '../support/vm.js'

let guest: Guest
beforeEach((context) => {
  needsTracing(context, vm)
  guest = Guest.create(vm)
})

test('what a trace remembers for causes does not hold what was drained', async () => {
  const big = Mapping.anonymous(8 * MiB, { hugePages: false })
  vm.memslots.create({ gpa: 0x100_0000, mapping: big })
  using recording = trace(vm, { kinds: ['spte-set', 'spte-change', 'notifier-unmap', 'zap-all'] })
  const round = () => {
    guest.touch(0x100_0000, 2048, 'write', 1)
    big.advise('dontneed')
    expect(recording.drain().length).toBeGreaterThan(2048)
  }
  round()
  await collect()
  const before = process.memoryUsage().arrayBuffers
  for (let times = 0; times < 60; times++) round()
  await collect()
  // Each round drains some 200 KB.
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * MiB)
})

describe('a loop over a trace', () => {
  // The library's own calls are traced on every host and lane.
  const change = () => vm.memslots.create({ gpa: 0x100_0000, mapping: Mapping.anonymous(4 * KiB) }).delete()
  const two = ['create', 'delete']
  const did = (events: Iterable<TraceEvent>) => ofKind([...events], 'memslot').map((event) => event.did)

  test('is refused beside another one, and each that waits ends with close()', async () => {
    using recording = trace(vm, { kinds: ['memslot'] })
    const first = recording[Symbol.asyncIterator]()
    const second = recording[Symbol.asyncIterator]()
    const waiting = first.next()
    await expect(second.next()).rejects.toMatchObject({ code: 'in-use' })
    change()
    expect((await waiting).value).toMatchObject({ did: 'create' })
    expect((await first.next()).value).toMatchObject({ did: 'delete' })
    const last = first.next()
    recording.close()
    expect(await last).toEqual({ done: true, value: undefined })
    expect(await recording[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined })
  })

  test('that is left has taken what it was given: the next loop, or drain(), goes on there', async () => {
    using recording = trace(vm, { kinds: ['memslot'] })
    const seen: TraceEvent[] = []
    change()
    for await (const event of recording) {
      seen.push(event)
      break
    }
    change()
    for await (const event of recording) {
      seen.push(event)
      if (seen.length === 3) break
    }
    expect(did([...seen, ...recording.drain()])).toEqual([...two, ...two])
    expect(recording.drain()).toEqual([])
  })

  test('that throws, or closes the trace in the midst of what came, ends', async () => {
    using recording = trace(vm, { kinds: ['memslot'] })
    change()
    const looped = (async () => {
      for await (const _ of recording) throw new Error('of the loop')
    })()
    await expect(looped).rejects.toThrow('of the loop')
    const seen: TraceEvent[] = []
    for await (const event of recording) {
      seen.push(event)
      recording.close()
    }
    expect(did(seen)).toEqual(['delete'])
  })
})

test('counters of a VM that is closed are no longer read, and the events before are told', () => {
  const recording = trace(vm, { kinds: ['memslot', 'statistics'] })
  vm.memslots.create({ gpa: 0x100_0000, mapping: Mapping.anonymous(4 * KiB) })
  vm.close()
  expect(ofKind(recording.drain(), 'memslot').length).toBe(1)
  recording.close()
})

const tracers = () => threads().filter((name) => name === 'kvm-trace').length
async function collect() {
  for (let round = 0; round < 6; round++) {
    globalThis.gc?.()
    await turn()
  }
}

describe('lifetimes', () => {
  test('a trace that is abandoned without close, while iterated too, leaves no thread and no descriptor once collected', async () => {
    await collect()
    const before = descriptors()
    const abandon = async () => {
      for (let round = 0; round < 5; round++) {
        const recording = trace(vm)
        vm.memslots.create({ gpa: 0x100_0000 + round * MiB, mapping: Mapping.anonymous(64 * KiB) })
        for await (const _ of recording) break
      }
    }
    await abandon()
    expect(tracers()).toBeGreaterThan(0)
    for (let round = 0; round < 50 && (tracers() > 0 || descriptors() > before); round++) {
      await collect()
      await sleep(20)
    }
    expect(tracers()).toBe(0)
    expect(descriptors()).toBeLessThanOrEqual(before)
  })

  test('a program that left the loop without close ends', () => {
    const program = `
      import { Kvm, Mapping } from ${library}
      import { trace } from ${observe}
      const vm = Kvm.open().createVm(), mapping = Mapping.anonymous(4096), recording = trace(vm)
      setTimeout(() => vm.memslots.create({ gpa: 0, mapping }), 1)
      for await (const event of recording) { console.log(event.kind); break }`
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: patience })
    expect({ stdout, stderr, status }).toEqual({ stdout: 'memslot\n', stderr: '', status: 0 })
  })

  test('traces that are opened and closed again and again leave the same descriptors', () => {
    const before = descriptors()
    for (let round = 0; round < 10; round++) trace(vm).close()
    expect(descriptors()).toBe(before)
    expect(tracers()).toBe(0)
  })

  test('a VM that is closed while it is traced is told with what happened before', () => {
    using recording = trace(vm)
    vm.memslots.create({ gpa: 0x10_0000, mapping: Mapping.anonymous(64 * KiB) })
    guest.touch(0x10_0000, 16, 'write', 1)
    vm.close()
    expect(ofKind(recording.drain(), 'spte-set').length).toBeGreaterThan(0)
    expect(recording.drain()).toEqual([])
  })

  test('a Worker that ends while it traces leaves no thread and no descriptor', async () => {
    const program = `
      import { Kvm, Mapping } from ${library}
      import { trace } from ${observe}
      import { parentPort } from 'node:worker_threads'
      const vm = Kvm.open().createVm(), recording = trace(vm)
      vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
      const events = recording[Symbol.asyncIterator]()
      const { value: { kind } } = await events.next()
      const next = events.next()
      setTimeout(() => parentPort.postMessage(kind), 50)
      await next`
    await collect()
    const before = ownDescriptors()
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`))
    const kind = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    expect(kind).toBe('memslot')
    expect(tracers()).toBe(1)
    await worker.terminate()
    expect(tracers()).toBe(0)
    // The trace ends with the thread, a moment later.
    for (let round = 0; round < 100 && ownDescriptors() > before; round++) await sleep(20)
    expect(ownDescriptors()).toBeLessThanOrEqual(before)
  })
})

describe('bad input', () => {
  test.each<[options: any, argument: string]>([
    [{ kinds: ['violations'] }, 'kinds'],
    [{ tracepoints: ['nonsense'] }, 'tracepoints'],
    [{ tracepoints: ['../kvm'] }, 'tracepoints'],
    [{ tracepoints: ['kvm/kvm_exit'] }, 'tracepoints'],
    [{ everywhere: 1 }, 'everywhere'],
    [{ ringSize: 4097 }, 'ringSize'],
    [{ ringSize: 2 ** 31 }, 'ringSize'],
    [{ ringSize: 12 * KiB }, 'ringSize'],
    [{ heldLimit: -1 }, 'heldLimit'],
    [{ ringsize: 4096 }, 'ringsize']
  ])('%j is refused', (options, argument) => {
    expect(checkedError(() => trace(vm, options), 'argument').argument).toBe(argument)
  })
  test('a tracepoint that this kernel lacks is refused', () => {
    expect(checkedError(() => trace(vm, { tracepoints: ['kvm/kvm_nonsense'] }), 'unavailable').message).toContain('kvm/kvm_nonsense')
  })
  test('a closed VM is refused', () => {
    vm.close()
    checkedError(() => trace(vm), 'closed')
  })
  test('a trace without descriptors left is an error that says so, and none stays open', () => {
    const program = `
      import { Kvm } from ${library}
      import { trace } from ${observe}
      import { closeSync, openSync, readdirSync } from 'node:fs'
      const vm = Kvm.open().createVm(), open = []
      console.log('begin')
      try { for (;;) open.push(openSync('/dev/null')) } catch {}
      for (const fd of open.splice(0, 6)) closeSync(fd)
      try { trace(vm) } catch (error) { console.log(error.code, error.errno, error.message.includes('ulimit')) }
      try { for (let found = 0; ; found++) open.push(openSync('/dev/null')) && found === 5 && console.log('6 are free') } catch {}`
    const limited = ['-c', `ulimit -n 256; exec "$0" --input-type=module -e "$1"`, process.execPath, program]
    const { stdout, stderr } = spawnSync('/bin/sh', limited, { encoding: 'utf8', timeout: patience })
    expect({ stdout, stderr }).toEqual({ stdout: 'begin\nlimit EMFILE true\n6 are free\n', stderr: '' })
  })
  test('a trace without descriptors for what comes after the tracepoints is undone, a loop is refused, and both work the next time', () => {
    const program = `
      import { Kvm, Mapping } from ${library}
      import { trace } from ${observe}
      import { closeSync, openSync, readdirSync } from 'node:fs'
      // These are held, so that no lost object could be collected instead.
      const kvm = (globalThis.kvm = Kvm.open()), vm = kvm.createVm(), kept = trace(vm, { kinds: ['memslot'] })
      console.log('begin')
      const open = [], fill = () => { try { for (;;) open.push(openSync('/dev/null')) } catch {} }
      const before = () => readdirSync('/proc/self/fd').length
      const count = before()
      // This is enough for a trace without tracepoints, but not for the descriptor of the counters.
      for (let free = 0; free < 40; free++) {
        fill()
        for (const fd of open.splice(0, free)) closeSync(fd)
        let made
        try { made = trace(vm, { kinds: ['statistics'] }) } catch (error) { if (error.errno !== 'EMFILE') throw error }
        made?.close()
        for (const fd of open.splice(0)) closeSync(fd)
        if (made) break
        if (before() !== count) console.log('left', before() - count)
      }
      fill()
      const error = await kept[Symbol.asyncIterator]().next().catch((error) => error)
      for (const fd of open.splice(0)) closeSync(fd)
      console.log(error.code, error.errno)
      setTimeout(() => vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }), 1)
      for await (const { kind } of kept) { console.log(kind); break }
      kvm.close()`
    const limited = ['-c', `ulimit -n 256; exec "$0" --input-type=module -e "$1"`, process.execPath, program]
    const { stdout, stderr } = spawnSync('/bin/sh', limited, { encoding: 'utf8', timeout: patience })
    expect({ stdout, stderr }).toEqual({ stdout: 'begin\nlimit EMFILE\nmemslot\n', stderr: '' })
  })
  test('without privilege the error says what grants it', (context) => {
    needsRoot(context, 'become somebody else')
    const program = `
      import { Trace } from ${observe}
      try { Trace.of({ processes: [process.pid], spteFormat: 'x86' }); console.log('opened') } catch (error) { console.log(error.code + ': ' + error.message) }`
    const { stdout, stderr, error } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      uid: 65534,
      gid: 65534,
      timeout: patience
    })
    if (error || stderr.includes('EACCES: permission denied') || stderr.includes('ERR_MODULE_NOT_FOUND'))
      return skip(context, 'another user may not read this folder, or that of the Node binary')
    expect(stdout).toMatch(/^permission: .*root/)
  })
})
