// Tests accesses that KVM itself makes, for a string instruction, which it emulates everywhere: they heed no signal while they wait for a page. The
// thread that would serve the page runs the vCPU, so the page is first taken from the access.

import { readFileSync } from 'node:fs'
import { type FaultHandler, KiB, Mapping, MiB, type Vcpu } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { needsPaging } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { isRunning } from '../support/running.js'
import { vm } from '../support/vm.js'
import { answer, worker } from '../support/worker.js'

const page = 4 * KiB
const lazyGpa = 0x8000
const pageOf = (byte: number) => new Uint8Array(page).fill(byte)

function guestOf(source: string, onMissing: FaultHandler) {
  const ram = Mapping.anonymous(32 * KiB)
  const lazy = Mapping.anonymous(32 * KiB)
  ram.write(0, assemble(`cld; mov $0x10, %dx; ${source}; hlt`, { mode: 'real', at: 0 }))
  vm.memslots.create({ gpa: 0, mapping: ram })
  vm.memslots.create({ gpa: lazyGpa, mapping: lazy })
  const paging = lazy.onMissing(onMissing)
  return { vcpu: vm.createVcpu().enter('real', { ip: 0 }), lazy, paging }
}

const pause = (milliseconds: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)

/** What the guest sends to its port next. */
function sent(vcpu: Vcpu): number[] | string {
  const exit = vcpu.run({ timeoutMs: patience })
  return exit.reason === 'io-out' ? [...exit.data] : exit.reason
}

describe('an access that KVM makes itself', () => {
  test('is made once the page that comes later is there, by whoever runs the vCPU next', async (context) => {
    needsPaging(context)
    const { vcpu, lazy, paging } = guestOf(`mov $${lazyGpa}, %si; outsb`, async () => pageOf(7))
    expect(() => sent(vcpu)).toThrow(expect.objectContaining({ code: 'not-present' }))
    expect(() => sent(vcpu)).toThrow(expect.objectContaining({ code: 'not-present' }))
    await paging.populate(0, page)
    expect([sent(vcpu), sent(vcpu)]).toEqual([[7], 'hlt'])
    expect([...lazy.read(0, 2)]).toEqual([7, 7])
  })

  test('across two pages gets what both hold', (context) => {
    needsPaging(context)
    const { vcpu } = guestOf(`mov $${lazyGpa + page - 2}, %si; outsl`, ({ offset }) => pageOf(offset === 0 ? 7 : 9))
    expect([sent(vcpu), sent(vcpu)]).toEqual([[7, 7, 9, 9], 'hlt'])
  })

  test('leaves no page without access once the service is closed', (context) => {
    needsPaging(context)
    const { vcpu, lazy, paging } = guestOf(`mov $${lazyGpa}, %si; outsb; outsb`, () => new Promise<null>(() => {}))
    expect(() => sent(vcpu)).toThrow(expect.objectContaining({ code: 'not-present' }))
    paging.close()
    expect([...lazy.read(0, 2)]).toEqual([0, 0])
    expect([sent(vcpu), sent(vcpu), sent(vcpu)]).toEqual([[0], [0], 'hlt'])
  })

  test('ends a run in another Worker when the VM ends, and is no exit', async (context) => {
    needsPaging(context)
    let asked = () => {}
    const missing = new Promise<void>((resolve) => (asked = resolve))
    const { paging } = guestOf(`mov $${lazyGpa}, %si; outsb`, () => {
      asked()
      return new Promise<null>(() => {})
    })
    const runner = worker(`
      try { parentPort.postMessage(vm.vcpu(0).run().reason) } catch (error) { parentPort.postMessage(error.code) }`)
    const said = answer(runner)
    runner.postMessage(vm.share())
    await missing
    vm.close()
    const how = await said
    // The page is never answered, and the vCPUs of the other tests would wait for it.
    paging.close()
    await runner.terminate()
    expect(how).toBe('closed')
  })

  test('gets its page though that was just taken from another vCPU, for which a change of the memslots waited', async (context) => {
    needsPaging(context)
    const { vcpu } = guestOf(`mov $${lazyGpa}, %si; outsb`, () => pageOf(7))
    const other = vm.createVcpu().enter('real', { ip: 0 })
    const over = other.start({ mmio: () => {}, memory: () => {}, 'io-out': () => {} })
    // The event loop does not turn here, since it would serve the page.
    while (!isRunning(other)) pause(1)
    vm.memslots.create({ gpa: MiB, mapping: Mapping.anonymous(page) }).delete()
    expect([sent(vcpu), sent(vcpu)]).toEqual([[7], 'hlt'])
    expect((await over).reason).toBe('hlt')
  })

  test('waits for a page that was taken from another some time ago, and that nobody came to serve since', async (context) => {
    needsPaging(context)
    const { vcpu, lazy } = guestOf(`mov $${lazyGpa}, %si; outsb`, () => pageOf(7))
    const other = vm.createVcpu().enter('real', { ip: 0 })
    const range = `${lazy.address.toString(16)}-${(lazy.address + lazy.size).toString(16)} rw`
    const isAccessible = () => readFileSync('/proc/self/maps', 'latin1').includes(range)
    const over = other.start({ mmio: () => {}, memory: () => {}, 'io-out': () => {} })
    while (!isRunning(other)) pause(1)
    vm.memslots.create({ gpa: MiB, mapping: Mapping.anonymous(page) }).delete()
    for (const end = Date.now() + patience; !isAccessible() && Date.now() < end; ) pause(1)
    const exits: unknown[] = []
    const second = vcpu.start({
      mmio: ({ gpa }) => exits.push(gpa),
      memory: ({ errno }) => exits.push(errno),
      'io-out': ({ data }) => exits.push(data[0])
    })
    expect((await second).reason).toBe('hlt')
    expect(exits).toEqual([7])
    expect((await over).reason).toBe('hlt')
  })

  test.for(['outsb', 'mov (%si), %al; out %al, %dx'])('is refused where the handler of its page runs the vCPU: %s', (access, context) => {
    needsPaging(context)
    const seen: unknown[] = []
    const { vcpu } = guestOf(`mov $${lazyGpa}, %si; ${access}`, () => {
      try {
        seen.push(sent(second))
      } catch (error) {
        seen.push((error as { code?: string }).code)
      }
      return pageOf(7)
    })
    const second = vm.createVcpu().enter('real', { ip: 0 })
    expect([sent(vcpu), sent(vcpu)]).toEqual([[7], 'hlt'])
    expect(seen).toEqual(['not-present'])
    expect([sent(second), sent(second)]).toEqual([[7], 'hlt'])
  })
})

test('a page that is asked for already, and touched by a guest meanwhile, is asked for once', async (context) => {
  needsPaging(context)
  let asked = 0
  let answer: (content: Uint8Array) => void = () => {}
  const { vcpu, paging } = guestOf(`mov $${lazyGpa}, %si; outsb`, () => {
    asked++
    return new Promise((resolve) => {
      answer = resolve
    })
  })
  const populated = paging.populate(0, page)
  expect(() => sent(vcpu)).toThrow(expect.objectContaining({ code: 'not-present' }))
  answer(pageOf(7))
  await populated
  expect([sent(vcpu), sent(vcpu), asked]).toEqual([[7], 'hlt', 1])
})

test('a handler that closes its service is not called for what else waits', async (context) => {
  needsPaging(context)
  let asked = 0
  const { lazy, paging } = guestOf('', () => {
    asked++
    paging.close()
    return null
  })
  expect([...lazy.read(0, 2 * page)].every((byte) => byte === 0)).toBe(true)
  expect(asked).toBe(1)
})
