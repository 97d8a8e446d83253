import { readdirSync } from 'node:fs'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { capabilities, GiB, KiB, Kvm, Mapping, MiB } from 'node-kvm'
import { trace } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { beforeEach, describe, expect, test } from 'vitest'
import { isOk, needsKvm } from '../support/needs.js'
import { descriptors, resident } from '../support/process.js'

beforeEach(needsKvm)

/** One VM with a guest that ran in it. */
function makeAndRun(kvm: Kvm) {
  const vm = kvm.createVm()
  const guest = Guest.create(vm)
  const mapping = Mapping.anonymous(MiB)
  vm.memslots.create({ gpa: 0x10_0000, mapping })
  guest.touch(0x10_0000, 256, 'write', 1)
  return { vm, mapping }
}

async function collect() {
  for (let round = 0; round < 5; round++) {
    globalThis.gc?.()
    await turn()
  }
}

test('1,000 VMs that are made and closed leave the same descriptors and the same resident memory', async () => {
  using kvm = Kvm.open()
  const round = (count: number) => {
    for (let made = 0; made < count; made++) {
      const { vm, mapping } = makeAndRun(kvm)
      vm.close()
      mapping.close()
    }
  }
  round(100)
  await collect()
  const before = { descriptors: descriptors(), resident: resident() }
  round(1000)
  expect(descriptors()).toBe(before.descriptors)
  await collect()
  // A leak of the VMs' memory would be a mebibyte for each VM.
  expect(resident() - before.resident).toBeLessThan(32 * MiB)
})

test('VMs with eventfds, rings and paged memory leave the same descriptors and threads when they are made and closed', async () => {
  using kvm = Kvm.open()
  const threads = () => readdirSync('/proc/self/task').length
  const round = () => {
    using vm = kvm.createVm()
    vm.interrupts.createIrqchip()
    vm.ioeventfd({ port: 1, size: 1 })
    vm.interrupts.irqfd({ gsi: 5, resample: true })
    if (kvm.capabilities.check(capabilities.COALESCED_PIO) > 0) vm.coalesce({ port: 2, size: 1 }, () => {})
    using mapping = Mapping.anonymous(MiB)
    vm.memslots.create({ gpa: 0x10_0000, mapping })
    const ring = kvm.capabilities.check(capabilities.DIRTY_LOG_RING_ACQ_REL) > 0
    vm.dirtyLog(ring ? { mode: 'ring', ringEntries: 4096 } : {}).collect()
    if (isOk('userfaultfd')) mapping.onMissing(() => null)
    expect(Guest.create(vm).touch(0x10_0000, 4, 'write', 1).reason).toBe('done')
  }
  for (let made = 0; made < 5; made++) round()
  await collect()
  const before = { descriptors: descriptors(), threads: threads(), resident: resident() }
  for (let made = 0; made < 200; made++) round()
  await collect()
  expect(descriptors()).toBe(before.descriptors)
  expect(threads()).toBe(before.threads)
  expect(resident() - before.resident).toBeLessThan(32 * MiB)
})

test('VMs that are dropped without close leak neither descriptors nor memory once collected', async () => {
  using kvm = Kvm.open()
  await collect()
  const before = { descriptors: descriptors(), resident: resident() }
  for (let made = 0; made < 100; made++) {
    makeAndRun(kvm)
    if (made % 20 === 0) await collect()
  }
  await collect()
  await collect()
  expect(descriptors()).toBeLessThanOrEqual(before.descriptors + 5)
  expect(resident() - before.resident).toBeLessThan(32 * MiB)
})

describe('what is dropped without close, and collected', () => {
  const withSlot = (kvm: Kvm) => {
    const vm = kvm.createVm()
    vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(64 * KiB) })
    return vm
  }
  const kinds: Record<string, (kvm: Kvm) => unknown> = {
    'a VM that ran': (kvm) => Guest.create(kvm.createVm()).touch(0x10_0000, 1, 'read'),
    'a dirty log': (kvm) => withSlot(kvm).dirtyLog(),
    'a dirty log that saw changes': (kvm) => {
      const vm = withSlot(kvm)
      vm.dirtyLog().collect()
      vm.memslots.create({ gpa: GiB, mapping: Mapping.memfd(4 * KiB) }).move(2 * GiB)
    },
    'dirty rings': (kvm) => {
      const vm = kvm.createVm()
      if (kvm.capabilities.check(capabilities.DIRTY_LOG_RING_ACQ_REL) > 0) vm.dirtyLog({ mode: 'ring', ringEntries: 4096 })
      vm.createVcpu()
    },
    statistics: (kvm) => kvm.createVm().stats.read(),
    'an ioeventfd that was unreferenced': (kvm) => kvm.createVm().ioeventfd({ port: 1, size: 1 }).unref(),
    'an irqfd': (kvm) => {
      const vm = kvm.createVm()
      vm.interrupts.createIrqchip()
      vm.interrupts.irqfd({ gsi: 1 })
    },
    'pages from bytes': () => isOk('userfaultfd') && Mapping.anonymous(64 * KiB).onMissing({ content: new Uint8Array(10) }),
    'a trace': (kvm) => isOk('tracefs') && isOk('tracepoints by perf') && trace(kvm.createVm(), { ringSize: 4 * KiB, kinds: ['zap-all'] }),
    'a started vCPU': (kvm) => {
      const vm = withSlot(kvm)
      vm.memory.write(0, new Uint8Array([0xf4]))
      vm.createVcpu().enter('real', { ip: 0 }).start({})
    }
  }
  test.for(Object.entries(kinds))('%s leaves no descriptor and no thread', async ([, make]) => {
    using kvm = Kvm.open()
    const threads = () => readdirSync('/proc/self/task').length
    const round = (count: number) => {
      for (let made = 0; made < count; made++) make(kvm)
    }
    // The first round makes the watcher of eventfds, and whatever else the process makes once.
    round(1)
    await collect()
    const before = { descriptors: descriptors(), threads: threads() }
    const count = 20
    round(count)
    // An object may be kept because a register or a stack still names it.
    const most = count / 4
    for (let look = 0; look < 50 && (descriptors() - before.descriptors > most || threads() - before.threads > most); look++) {
      await collect()
      await sleep(10)
    }
    expect(descriptors() - before.descriptors).toBeLessThanOrEqual(most)
    expect(threads() - before.threads).toBeLessThanOrEqual(most)
  })
})

test('a mapping whose buffer is alive stays mapped, and goes with the buffer', async () => {
  const size = 64 * MiB
  let bytes: Uint8Array | undefined
  {
    using mapping = Mapping.anonymous(size, { populate: true })
    bytes = new Uint8Array(mapping.buffer)
  }
  await collect()
  const held = resident()
  bytes[size - 4 * KiB] = 1
  expect(bytes[size - 4 * KiB]).toBe(1)
  bytes = undefined
  await collect()
  await collect()
  expect(held - resident()).toBeGreaterThan(size / 2)
})
