import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { capabilities, Mapping, MiB, type Vcpu, Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'
import { expect, type TestContext, test } from 'vitest'
import { library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { skip } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

// An environment that attaches a VM has ranges of its own, even in the same thread.

function realMode(context: TestContext, source: string): Vcpu {
  if (kvm.capabilities.check(capabilities.COALESCED_PIO) === 0) skip(context, 'this kernel lacks KVM_CAP_COALESCED_PIO')
  const ram = Mapping.anonymous(MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000 })
}

/** A range for one port, and the values that were written to it. */
function listen(machine: Vm, port: number) {
  const seen: number[] = []
  const zone = machine.coalesce({ port, size: 2 }, (writes) => {
    for (const { address, data } of writes) {
      if (address !== port) throw new Error(`port ${address} is not ${port}`)
      seen.push(Buffer.from(data).readUIntLE(0, data.length))
    }
  })
  return { zone, seen }
}

test("each has its own writes, whoever runs the vCPU, and what is another one's stays for it", (context) => {
  const vcpu = realMode(context, 'mov $1, %ax; out %ax, $0x10; inc %ax; out %ax, $0x20; inc %ax; out %ax, $0x10; inc %ax; out %ax, $0x20; hlt')
  using same = Vm.attach(vm.share())
  const ours = listen(vm, 0x10)
  const theirs = listen(same, 0x20)
  checkedError(() => vm.coalesce({ port: 0x21, size: 1 }, () => {}), 'overlap')
  expect(vcpu.run().reason).toBe('hlt')
  expect([ours.seen, theirs.seen]).toEqual([[1, 3], []])
  theirs.zone.drain()
  expect([ours.seen, theirs.seen]).toEqual([
    [1, 3],
    [2, 4]
  ])
})

test('one that does not drain takes room, and no write is lost or told twice', (context) => {
  const total = 600
  const vcpu = realMode(
    context,
    `xor %ax, %ax; mov $${total}, %cx; 1: out %ax, $0x10; test $7, %al; jnz 2f; out %ax, $0x20; 2: inc %ax; loop 1b; hlt`
  )
  using same = Vm.attach(vm.share())
  const ours = listen(vm, 0x10)
  const theirs = listen(same, 0x20)
  const exits: number[] = []
  for (let exit = vcpu.run(); exit.reason !== 'hlt'; exit = vcpu.run()) {
    if (exit.reason !== 'io-out') throw new Error(exit.reason)
    const value = Buffer.from(exit.data).readUInt16LE()
    // Our own writes are in order with the exits of those that found no room.
    if (exit.port === 0x10) ours.seen.push(value)
    else exits.push(value)
  }
  expect(ours.seen).toEqual(Array.from({ length: total }, (_, value) => value))
  theirs.zone.drain()
  expect([...theirs.seen, ...exits]).toEqual(Array.from({ length: total / 8 }, (_, value) => value * 8))
})

test("the guest's writes are exits again, of ranges and of ioeventfds, when one closes the VM or its Worker ends", async (context) => {
  const vcpu = realMode(context, '1: out %al, $0x20; out %al, $0x21; out %al, $0x30; jmp 1b')
  const toNextLap = () => {
    const ports: number[] = []
    while (ports.at(-1) !== 0x30) {
      const exit = vcpu.run()
      if (exit.reason !== 'io-out') throw new Error(exit.reason)
      ports.push(exit.port)
    }
    return ports
  }
  const make = (machine: Vm) => {
    machine.coalesce({ port: 0x20, size: 1 }, () => {})
    machine.ioeventfd({ port: 0x21 })
  }
  const same = Vm.attach(vm.share())
  make(same)
  expect(toNextLap()).toEqual([0x30])
  same.close()
  expect(toNextLap()).toEqual([0x20, 0x21, 0x30])
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
    import(${library}).then(({ Vm }) => {
      globalThis.vm = Vm.attach(workerData)
      ;(${make})(vm)
      parentPort.on('message', () => {}).postMessage('ready')
    })`,
    { eval: true, workerData: vm.share() }
  )
  await once(worker, 'message')
  expect(toNextLap()).toEqual([0x30])
  await worker.terminate()
  expect(toNextLap()).toEqual([0x20, 0x21, 0x30])
})
