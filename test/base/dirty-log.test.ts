import { Mapping, type Memslot, MiB } from 'node-kvm'
import { Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { changedPages, copyInto, gpa, modes, needsMode, pageSize, pagesOf } from '../support/dirty-log.js'
import { checkedError } from '../support/errors.js'
import { inLab } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'
import { Writer, wordsOf } from '../support/writer.js'

function copyOf(mapping: Mapping, pages: number): Mapping {
  const copy = Mapping.anonymous(pages * pageSize)
  copy.write(0, mapping.read(0, pages * pageSize))
  return copy
}

// Cases F01 to F03.
describe.each(modes)('a dirty log with mode %s', (mode) => {
  // The bitmap has words of 64 bits: these sizes are below, at, and past a border.
  test.for([1, 64, 67, 130])('says exactly what a guest wrote to %i pages between two looks', (pages, context) => {
    needsMode(context, kvm, mode)
    vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
    using log = vm.dirtyLog({ mode, ringEntries: 4096 })
    const writer = new Writer(vm, gpa, pages)
    // Pages that were never reported count as dirty.
    expect(pagesOf(log.collect())).toEqual(Array.from({ length: pages }, (_, page) => page))
    let before = wordsOf(vm, gpa, pages)
    for (let round = 0; round < (inLab ? 10 : 40); round++) {
      expect(['io-out', 'dirty-ring-full']).toContain(writer.run(pages))
      const dirty = pagesOf(log.collect())
      const words = wordsOf(vm, gpa, pages)
      const changed = changedPages(before, words)
      expect(dirty).toEqual(expect.arrayContaining(changed))
      // A write that faulted, and was interrupted before it was done, is logged now and done in the next round. There is one vCPU, so there is at
      // most one.
      expect(dirty.length - changed.length).toBeLessThanOrEqual(1)
      for (const page of dirty) expect(page).toBeLessThan(pages)
      before = words
    }
    expect(writer.counter).toBeGreaterThan(0)
  })

  test('has what the library writes, too, and nothing more', (context) => {
    needsMode(context, kvm, mode)
    const mapping = Mapping.anonymous(256 * pageSize)
    vm.memslots.create({ gpa, mapping, size: 64 * pageSize })
    // The same memory is mapped again, elsewhere.
    vm.memslots.create({ gpa: 4 * MiB, mapping, offset: 8 * pageSize, size: 8 * pageSize })
    using log = vm.dirtyLog({ mode })
    log.collect()
    expect(log.collect()).toEqual([])
    mapping.write(pageSize - 1, new Uint8Array(2))
    expect(pagesOf(log.collect(), gpa, 4 * MiB)).toEqual([0, 1])
    vm.memory.write(gpa + 3 * pageSize, new Uint8Array(1))
    mapping.fill(1, 5 * pageSize, pageSize)
    mapping.remap(7 * pageSize, pageSize)
    mapping.advise('dontneed', 60 * pageSize, 8 * pageSize)
    expect(pagesOf(log.collect(), gpa, 4 * MiB)).toEqual([3, 5, 7, 60, 61, 62, 63])
    mapping.write(9 * pageSize, new Uint8Array(1))
    expect(log.collect()).toEqual([
      { gpa: gpa + 9 * pageSize, size: pageSize },
      { gpa: 4 * MiB + pageSize, size: pageSize }
    ])
    mapping.read(0, 256 * pageSize)
    mapping.advise('willneed')
    log.mark(gpa + 11 * pageSize + 1, pageSize)
    expect(pagesOf(log.collect(), gpa, 4 * MiB)).toEqual([11, 12])
  })

  test('makes an exact copy in the end, by running, collecting and copying', (context) => {
    needsMode(context, kvm, mode)
    const pages = inLab ? 259 : 2051
    const mapping = Mapping.anonymous(pages * pageSize)
    const slot = vm.memslots.create({ gpa, mapping })
    using log = vm.dirtyLog({ mode, ringEntries: 1024 })
    const writer = new Writer(vm, gpa, pages)
    const copy = new Uint8Array(pages * pageSize)
    for (let round = 0; round < (inLab ? 10 : 60); round++) {
      copyInto(copy, vm, log.collect())
      writer.run(200)
      mapping.write((round * 7919 * 64) % (mapping.size - 8), new Uint8Array(8).fill(round))
      if (round % 10 === 3) mapping.remap(pageSize * round, pageSize)
      if (round % 10 === 6) slot.rebind(copyOf(mapping, pages))
      if (round % 10 === 7) slot.rebind(mapping)
    }
    copyInto(copy, vm, log.collect())
    expect(Buffer.compare(copy, vm.memory.read(gpa, copy.length))).toBe(0)
    expect(writer.counter).toBeGreaterThan(0)
  })
})

const bits = (bitmap: Uint8Array) => Array.from({ length: bitmap.length * 8 }, (_, bit) => bit).filter((bit) => (bitmap[bit >> 3]! >> (bit & 7)) & 1)
const bitmapOf = (length: number, ...set: number[]) => {
  const bitmap = new Uint8Array(length)
  for (const bit of set) bitmap[bit >> 3]! |= 1 << (bit & 7)
  return bitmap
}

// Case F02.
test('with manual protect, reading the bitmap clears nothing, and clearing clears what it names', (context) => {
  needsMode(context, kvm, 'manual')
  const slot: Memslot = vm.memslots.create({ gpa, mapping: Mapping.anonymous(131 * pageSize) })
  using log = vm.dirtyLog({ mode: 'manual' })
  log.collect()
  const guest = Guest.create(vm)
  for (const page of [0, 5, 64, 70, 128, 130]) guest.write(gpa + page * pageSize, 1n)
  expect(bits(slot.getDirtyLog())).toEqual([0, 5, 64, 70, 128, 130])
  expect(bits(slot.getDirtyLog())).toEqual([0, 5, 64, 70, 128, 130])
  slot.clearDirtyLog(bitmapOf(8, 6), 64)
  expect(bits(slot.getDirtyLog())).toEqual([0, 5, 64, 128, 130])
  guest.write(gpa + 70 * pageSize, 2n)
  slot.clearDirtyLog(bitmapOf(8, 0, 2), 128)
  expect(bits(slot.getDirtyLog())).toEqual([0, 5, 64, 70])
  slot.clearDirtyLog(bitmapOf(24, 0, 5, 64, 70))
  expect(bits(slot.getDirtyLog())).toEqual([])
  guest.write(gpa + 130 * pageSize, 3n)
  expect(bits(slot.getDirtyLog())).toEqual([130])
  checkedError(() => slot.clearDirtyLog(new Uint8Array(8), 1), 'argument')
  checkedError(() => slot.clearDirtyLog(new Uint8Array(7)), 'argument')
  checkedError(() => slot.clearDirtyLog(new Uint8Array(8), 192), 'argument')
})

// Case F03.
test('a ring that is full is an exit, after which collecting lets the guest go on', (context) => {
  needsMode(context, kvm, 'ring')
  const pages = 2048
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 1024 })
  log.collect()
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  for (let round = 0; round < 3; round++) {
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    // Without a collect() the ring stays full.
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    const dirty = pagesOf(log.collect())
    expect(dirty.length).toBeGreaterThan(0)
    expect(dirty.length).toBeLessThanOrEqual(1024)
    for (const page of dirty) expect(page).toBeLessThan(pages)
  }
  // harvest() takes the pages over without reporting them, and none of them is lost.
  expect(writer.run(1_000_000)).toBe('dirty-ring-full')
  log.harvest()
  expect(log.collect().length).toBeGreaterThan(0)
})

// Case F03.
test('rings come before vCPUs, in a size that the kernel takes, and stay', (context) => {
  needsMode(context, kvm, 'ring')
  for (const ringEntries of [0, 3, 2 ** 23, '8'] as never[])
    expect(checkedError(() => vm.dirtyLog({ mode: 'ring', ringEntries }), 'argument').argument).toBe('ringEntries')
  expect(checkedError(() => vm.dirtyLog({ mode: 'ring', ringEntries: 8 }), 'ioctl').errno).toBe('EINVAL')
  using late = kvm.createVm()
  late.createVcpu()
  expect(checkedError(() => late.dirtyLog({ mode: 'ring' }), 'ioctl').message).toContain('before the first vCPU')
  vm.dirtyLog({ mode: 'ring' }).close()
  expect(checkedError(() => vm.dirtyLog({ mode: 'bitmap' }), 'argument').argument).toBe('mode')
  vm.dirtyLog({ mode: 'ring' }).close()
})

// Case F03.
test('what a vCPU wrote is told of after its end', (context) => {
  needsMode(context, kvm, 'ring')
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(64 * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring' })
  const guest = Guest.create(vm)
  log.collect()
  guest.write(gpa + 9 * pageSize, 1n)
  guest.vcpu.close()
  expect(pagesOf(log.collect())).toEqual([9])
})
