import { AsyncLocalStorage } from 'node:async_hooks'
import { setImmediate as turn } from 'node:timers/promises'
import { type CoalescedWrite, capabilities, type KvmError, Mapping, MiB, type Vcpu } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { describe, expect, type TestContext, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { kernelIsAtLeast } from '../support/kernel.js'
import { inLab, skip } from '../support/skip.js'
import { Uncaught } from '../support/uncaught.js'
import { kvm, vm } from '../support/vm.js'

const hole = 0xf0000
// The ring's page holds two indices and entries of 24 bytes, one of which stays free.
const capacity = Math.floor((4096 - 8) / 24) - 1

function need(context: TestContext): void {
  if (kvm.capabilities.check(capabilities.COALESCED_PIO) === 0) skip(context, 'this kernel lacks KVM_CAP_COALESCED_PIO')
}

function realMode(source: string): Vcpu {
  const ram = Mapping.anonymous(MiB)
  vm.memslots.create({ gpa: 0, mapping: ram, size: hole })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
}

const numbers = (writes: readonly CoalescedWrite[]) => writes.map(({ address, data }) => [address, Buffer.from(data).readUIntLE(0, data.length)])

// Before Linux 6.12 KVM computed the room wrongly until the ring had wrapped: already the write after the 85th exits (coalesced_mmio_has_room()).
const isExact = kernelIsAtLeast(6, 12)

// Case H01.
test('the ring holds its size less one, and the next write exits; all arrive, in order, before their exit', (context) => {
  need(context)
  const seen: number[] = []
  const batches: number[] = []
  vm.coalesce({ port: 0x3f8, size: 8 }, (writes) => {
    batches.push(writes.length)
    seen.push(...numbers(writes).map(([, value]) => value as number))
  })
  const total = capacity * 2 + 12
  const vcpu = realMode(`xor %ax, %ax; mov $0x3f8, %dx; mov $${total}, %cx; 1: out %ax, %dx; inc %ax; loop 1b; hlt`)
  for (let exit = vcpu.run(); exit.reason !== 'hlt'; exit = vcpu.run()) {
    if (exit.reason !== 'io-out') throw new Error(exit.reason)
    // Writes from before this exit must have been handed on before it.
    const value = Buffer.from(exit.data).readUInt16LE()
    expect(value).toBe(seen.length)
    seen.push(value)
  }
  expect(seen).toEqual(Array.from({ length: total }, (_, value) => value))
  if (isExact) expect(batches).toEqual([capacity, capacity, 10])
  else expect(Math.max(...batches)).toBeLessThanOrEqual(capacity)
})

test('a handler that runs another vCPU leaves the exit after its writes as it was', (context) => {
  need(context)
  const vcpu = realMode('out %al, $0x10; out %ax, $0x20; hlt')
  const other = vm.createVcpu().enter('real', { ip: 0x1800 })
  vm.memory.write(0x1800, assemble('out %al, $0x21; hlt', { mode: 'real', at: 0x1800 }))
  const seen: unknown[] = []
  vm.coalesce({ port: 0x10, size: 1 }, () => seen.push({ ...other.run() }))
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x20, size: 2 })
  expect(seen).toMatchObject([{ port: 0x21, size: 1 }])
})

// Case H01.
test('writes to ports and to memory interleave, each to its own handler, in the order of the guest', (context) => {
  need(context)
  const order: [string, number[][]][] = []
  vm.coalesce({ gpa: hole, size: 0x100 }, (writes) => order.push(['memory', numbers(writes)]))
  vm.coalesce({ port: 0x10, size: 2 }, (writes) => order.push(['ports', numbers(writes)]))
  const vcpu = realMode(`mov $0xf000, %ax; mov %ax, %ds; movb $1, (0); movb $2, (0xff); out %al, $0x10
    movl $0x12345678, (8); mov $7, %al; out %al, $0x11; out %al, $0x12; movb $3, (0x100); hlt`)
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x12 })
  expect(order).toEqual([
    [
      'memory',
      [
        [hole, 1],
        [hole + 0xff, 2]
      ]
    ],
    ['ports', [[0x10, 0]]],
    ['memory', [[hole + 8, 0x12345678]]],
    ['ports', [[0x11, 7]]]
  ])
  expect(vcpu.run()).toMatchObject({ reason: 'mmio', gpa: hole + 0x100 })
  expect(vcpu.run().reason).toBe('hlt')
})

// Case H01.
test('each write exits once the range has ended, and what waited has arrived', (context) => {
  need(context)
  const seen: number[] = []
  const zone = vm.coalesce({ port: 0x10, size: 1 }, (writes) => seen.push(...writes.map(({ data }) => data[0]!)))
  const vcpu = realMode('sti; mov $1, %al; out %al, $0x10; 1: jmp 1b; mov $2, %al; out %al, $0x10; mov $3, %al; out %al, $0x10; hlt')
  // Nothing but the time limit leaves the guest, and Bochs (lane ept) lets the limit end only a guest that has interrupts on.
  do expect(vcpu.run({ timeoutMs: 50 }).reason).toBe('timeout')
  while (seen.length === 0)
  expect(seen).toEqual([1])
  zone.close()
  zone.close()
  vcpu.registers.set({ rip: vcpu.registers.get().rip + 2n })
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', data: new Uint8Array([2]) })
  expect(vcpu.run()).toMatchObject({ reason: 'io-out', data: new Uint8Array([3]) })
  expect(vcpu.run().reason).toBe('hlt')
  expect(seen).toEqual([1])
})

test('a handler that throws loses neither the exit nor the writes after it', async (context) => {
  need(context)
  using uncaught = new Uncaught()
  const seen: unknown[] = []
  vm.coalesce({ port: 0x10, size: 1 }, (writes) => {
    seen.push(...numbers(writes))
    throw new Error('of the handler')
  })
  vm.coalesce({ port: 0x11, size: 1 }, (writes) => seen.push(...numbers(writes)))
  const vcpu = realMode('mov $1, %al; out %al, $0x10; out %al, $0x11; out %al, $0x10; in $0x20, %al; hlt')
  expect(vcpu.run()).toMatchObject({ reason: 'io-in', port: 0x20 })
  expect(seen).toEqual([
    [0x10, 1],
    [0x11, 1],
    [0x10, 1]
  ])
  await turn()
  expect(uncaught.messages).toEqual(['of the handler', 'of the handler'])
})

describe('while handlers are called', () => {
  // The first vCPU writes 1 to 4 to 0x10 and 0x11 by turns, the second writes 0xee to 0x12.
  function twoVcpus(): [first: Vcpu, second: Vcpu] {
    const first = realMode(
      'mov $1, %al; out %al, $0x10; inc %al; out %al, $0x11; inc %al; out %al, $0x10; inc %al; out %al, $0x11; out %ax, $0x20; hlt'
    )
    const second = vm.createVcpu().enter('real', { ip: 0x1800 })
    vm.memory.write(0x1800, assemble('mov $0xee, %al; out %al, $0x12; out %al, $0x12; out %al, $0x21; hlt', { mode: 'real', at: 0x1800 }))
    return [first, second]
  }
  const own = ['10=1', '11=2', '10=3', '11=4']
  /** Makes ranges of one port each, whose handlers note what they get and then call `once`. */
  function listen(ports: readonly number[], once: () => void): string[] {
    const heard: string[] = []
    let done = false
    for (const port of ports)
      vm.coalesce({ port, size: 1 }, (writes) => {
        for (const [address, value] of numbers(writes) as [number, number][]) {
          expect(address).toBe(port)
          heard.push(`${address.toString(16)}=${value.toString(16)}`)
        }
        if (!done) {
          done = true
          once()
        }
      })
    return heard
  }

  test('one runs another vCPU, and each write reaches its own handler, once, in order, and before the exit that it is older than', (context) => {
    need(context)
    const [first, second] = twoVcpus()
    let inner: unknown
    const heard = listen([0x10, 0x11, 0x12], () => {
      inner = { ...second.run(), heard: heard.length }
    })
    expect(first.run()).toMatchObject({ reason: 'io-out', port: 0x20, size: 2 })
    expect(inner).toMatchObject({ reason: 'io-out', port: 0x21, size: 1, heard: 6 })
    expect(heard).toEqual([...own, '12=ee', '12=ee'])
  })

  test('one drains, closes its range and opens it again', (context) => {
    need(context)
    const [first] = twoVcpus()
    const again: unknown[] = []
    let drained = 0
    const zone = vm.coalesce({ port: 0x13, size: 1 }, () => {})
    const heard = listen([0x10, 0x11], () => {
      zone.drain()
      drained = heard.length
      zone.close()
      vm.coalesce({ port: 0x13, size: 1 }, (writes) => again.push(writes))
    })
    expect(first.run()).toMatchObject({ reason: 'io-out', port: 0x20 })
    expect(heard).toEqual(own)
    expect(drained).toBe(own.length)
    expect(again).toEqual([])
  })

  test('one closes its own range and has got its writes, and the range that follows there gets only later ones', (context) => {
    need(context)
    const vcpu = realMode('mov $1, %al; out %al, $0x10; inc %al; out %al, $0x11; inc %al; out %al, $0x10; out %al, $0x20; out %al, $0x10; hlt')
    const heard: unknown[] = []
    const zone = vm.coalesce({ port: 0x10, size: 1 }, (writes) => {
      heard.push(['first', numbers(writes)])
      const isOuter = heard.length === 1
      zone.close()
      if (isOuter) vm.coalesce({ port: 0x10, size: 1 }, (later) => heard.push(['second', numbers(later)]))
    })
    vm.coalesce({ port: 0x11, size: 1 }, (writes) => heard.push(['other', numbers(writes)]))
    expect(vcpu.run()).toMatchObject({ port: 0x20 })
    expect(vcpu.run().reason).toBe('hlt')
    expect(heard).toEqual([
      ['first', [[0x10, 1]]],
      ['other', [[0x11, 2]]],
      ['first', [[0x10, 3]]],
      ['second', [[0x10, 3]]]
    ])
  })

  test('one closes the VM, and what was written before is delivered, while nothing can be added', (context) => {
    need(context)
    const [first] = twoVcpus()
    let delivered = 0
    let refused: KvmError | undefined
    const heard = listen([0x10, 0x11], () => {
      vm.close()
      delivered = heard.length
    })
    vm.ioeventfd({ port: 0x30 }).once('close', () => {
      refused = checkedError(() => vm.coalesce({ port: 1, size: 1 }, () => {}), 'closed')
    })
    expect(first.run()).toMatchObject({ reason: 'io-out', port: 0x20 })
    expect(heard).toEqual(own)
    expect(delivered).toBe(own.length)
    expect(refused?.message).toContain('being closed')
    expect(vm.closed).toBe(true)
  })

  test('the vCPU whose exit is not told yet is not run, since that would be an exit without its answer', (context) => {
    need(context)
    const vcpu = realMode('out %al, $0x10; in $0x20, %al; out %al, $0x21; hlt')
    const other = vm.createVcpu().enter('real', { ip: 0x1800 })
    vm.memory.write(0x1800, assemble('out %al, $0x11; hlt', { mode: 'real', at: 0x1800 }))
    const refused: string[] = []
    const refuse = () => {
      refused.push(checkedError(() => vcpu.run(), 'state').message)
      checkedError(() => vcpu.start({}), 'state')
    }
    vm.coalesce({ port: 0x10, size: 1 }, () => {
      refuse()
      expect(other.run().reason).toBe('hlt')
    })
    // The same holds in a handler that is called within the first one.
    vm.coalesce({ port: 0x11, size: 1 }, refuse)
    const exit = vcpu.run()
    if (exit.reason !== 'io-in') throw new Error(exit.reason)
    expect(exit.port).toBe(0x20)
    expect(refused.length).toBe(2)
    exit.data[0] = 0x77
    expect(vcpu.run()).toMatchObject({ reason: 'io-out', port: 0x21, data: new Uint8Array([0x77]) })
    expect(vcpu.run().reason).toBe('hlt')
  })

  test('one stops a started vCPU, which stops after the exit was told, or closes it, which is done at once', async (context) => {
    need(context)
    const told: string[] = []
    const start = async (act: (vcpu: Vcpu) => void) => {
      const vcpu = vm.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
      using _ = vm.coalesce({ port: 0x10, size: 1 }, () => act(vcpu))
      const ended = await vcpu.start({ 'io-out': ({ port }) => told.push(port.toString(16)) })
      return [ended.reason, ...told.splice(0)]
    }
    realMode('out %al, $0x10; out %al, $0x20; out %al, $0x21; hlt')
    expect(await start((vcpu) => void vcpu.stop())).toEqual(['stopped', '20'])
    expect(await start((vcpu) => vcpu.close())).toEqual(['stopped'])
    expect(await start((vcpu) => checkedError(() => vcpu.run(), 'state'))).toEqual(['hlt', '20', '21'])
  })

  test('what waits when a started vCPU is stopped in the guest is delivered', async (context) => {
    need(context)
    const seen: unknown[] = []
    vm.coalesce({ port: 0x10, size: 1 }, (writes) => seen.push(...numbers(writes)))
    const vcpu = realMode('sti; mov $5, %al; out %al, $0x10; movb $1, (0x500); 1: jmp 1b')
    const ended = vcpu.start({})
    while (vm.memory.read(0x500, 1)[0] === 0) await turn()
    await vcpu.stop()
    expect((await ended).reason).toBe('stopped')
    expect(seen).toEqual([[0x10, 5]])
  })
})

test('a handler is called in the async context that its range was made in', (context) => {
  need(context)
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  storage.run('of the range', () => vm.coalesce({ port: 0x10, size: 1 }, () => seen.push(storage.getStore())))
  const vcpu = realMode('out %al, $0x10; hlt')
  storage.run('of the run', () => vcpu.run())
  expect(seen).toEqual(['of the range'])
})

test('a handler that cannot be bound is refused before KVM is asked', (context) => {
  need(context)
  const hostile = Object.defineProperty(() => {}, 'length', {
    get: () => {
      throw new Error('of a getter')
    }
  })
  expect(() => vm.coalesce({ port: 0x10, size: 1 }, hostile)).toThrow('of a getter')
  expect(realMode('out %al, $0x10; hlt').run()).toMatchObject({ reason: 'io-out', port: 0x10 })
})

test('ranges that overlap are refused, since a write has one handler, and who takes back one would take back both', (context) => {
  need(context)
  vm.coalesce({ port: 0x10, size: 8 }, () => {})
  expect(checkedError(() => vm.coalesce({ port: 0x17, size: 1 }, () => {}), 'overlap').message).toContain('0x17-0x18')
  vm.coalesce({ port: 0x18, size: 1 }, () => {}).close()
  vm.coalesce({ gpa: hole, size: 8 }, () => {})
  expect(realMode('out %al, $0x17; hlt').run().reason).toBe('hlt')
})

test('ranges that are none are refused, and more than a VM has room for', (context) => {
  need(context)
  for (const [range, argument] of [
    [{ size: 1 }, 'port'],
    [{ port: 1, gpa: 1, size: 1 }, 'port'],
    [{ port: 1 }, 'size'],
    [{ port: 1, size: 1, length: 1 }, 'length'],
    [{ port: -1, size: 1 }, 'port']
  ] as const)
    expect(checkedError(() => vm.coalesce(range as never, () => {}), 'argument').argument).toBe(argument)
  expect(checkedError(() => vm.coalesce({ port: 1, size: 1 }, undefined as never), 'argument').argument).toBe('handler')
  // Each change waits for KVM's readers (synchronize_srcu): a thousand changes take a minute on an emulated machine.
  if (!inLab)
    expect(
      checkedError(() => {
        for (let made = 0; made < 10_000; made++) vm.coalesce({ gpa: hole + made, size: 1 }, () => {})
      }, 'ioctl').errno
    ).toBe('ENOSPC')
  vm.close()
  checkedError(() => vm.coalesce({ port: 1, size: 1 }, () => {}), 'closed')
})
