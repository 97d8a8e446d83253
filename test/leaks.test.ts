import { setImmediate as turn } from 'node:timers/promises'
import { Guest, KiB, Kvm, Mapping, MiB } from 'node-kvm'
import { expect, test } from 'vitest'
import { descriptors, resident } from './support/process.js'

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

test('1,000 VMs made and closed: the same descriptors, and resident memory flat', async () => {
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
  // A leak of one VM's memory alone would be 1 GiB.
  expect(resident() - before.resident).toBeLessThan(32 * MiB)
})

test('VMs dropped without close leak neither descriptors nor memory once collected', async () => {
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
