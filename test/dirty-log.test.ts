import { unlinkSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { capabilities, type DirtyLogMode, type DirtyRange, Guest, KiB, Mapping, type Memslot, MiB, Vm } from 'node-kvm'
import { describe, expect, type TestContext, test } from 'vitest'
import { watchChanges } from '../lib/memory/changes.js'
import { PageSet } from '../lib/memory/page-set.js'
import { checkedError } from './support/errors.js'
import { untilRunning } from './support/running.js'
import { inLab, skip, skipWhereSlow } from './support/skip.js'
import { kvm, vm } from './support/vm.js'
import { Writer, wordsOf } from './support/writer.js'

const pageSize = 4 * KiB
const gpa = 0x20_0000
const modes: DirtyLogMode[] = ['bitmap', 'manual', 'ring']

function need(context: TestContext, mode: DirtyLogMode): void {
  if (mode === 'manual' && kvm.checkExtension(capabilities.MANUAL_DIRTY_LOG_PROTECT2) === 0)
    skip(context, 'this kernel lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2')
  if (mode === 'ring' && kvm.checkExtension(capabilities.DIRTY_LOG_RING) === 0 && kvm.checkExtension(capabilities.DIRTY_LOG_RING_ACQ_REL) === 0)
    skip(context, 'this kernel lacks KVM_CAP_DIRTY_LOG_RING')
}

/** Page numbers from `gpa` on. */
const pagesOf = (ranges: DirtyRange[], from = gpa, to = gpa + 16 * MiB) =>
  ranges.flatMap((range) =>
    range.gpa < from || range.gpa >= to ? [] : Array.from({ length: range.size / pageSize }, (_, page) => (range.gpa - from) / pageSize + page)
  )

/** Those whose first word is another than before. */
const changedPages = (before: number[], words: number[]) => words.flatMap((word, page) => (word === before[page] ? [] : [page]))

function copyInto(copy: Uint8Array, source: Vm, ranges: DirtyRange[]): void {
  for (const range of ranges) if (range.gpa >= gpa && range.gpa < gpa + copy.length) copy.set(source.read(range.gpa, range.size), range.gpa - gpa)
}

describe.each(modes)('F01 to F03 a dirty log with mode %s', (mode) => {
  // 64 is a word of the bitmap: sizes below, at, and past a border.
  test.for([1, 64, 67, 130])('says exactly what a guest wrote to %i pages between two looks', (pages, context) => {
    need(context, mode)
    vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
    using log = vm.dirtyLog({ mode, ringEntries: 4096 })
    const writer = new Writer(vm, gpa, pages)
    // What was never told of counts as dirty.
    expect(pagesOf(log.collect())).toEqual(Array.from({ length: pages }, (_, page) => page))
    let before = wordsOf(vm, gpa, pages)
    for (let round = 0; round < (inLab ? 10 : 40); round++) {
      expect(['io-out', 'dirty-ring-full']).toContain(writer.run(pages))
      const dirty = pagesOf(log.collect())
      const words = wordsOf(vm, gpa, pages)
      const changed = changedPages(before, words)
      expect(dirty).toEqual(expect.arrayContaining(changed))
      // A write that faulted, and was interrupted before it was done, is logged now and done in the next round. There is one vCPU.
      expect(dirty.length - changed.length).toBeLessThanOrEqual(1)
      for (const page of dirty) expect(page).toBeLessThan(pages)
      before = words
    }
    expect(writer.counter).toBeGreaterThan(0)
  })

  test('has what the library writes too, and nothing more', (context) => {
    need(context, mode)
    const mapping = Mapping.anonymous(256 * pageSize)
    vm.memslots.create({ gpa, mapping, size: 64 * pageSize })
    // The same memory again, elsewhere.
    vm.memslots.create({ gpa: 4 * MiB, mapping, offset: 8 * pageSize, size: 8 * pageSize })
    using log = vm.dirtyLog({ mode })
    log.collect()
    expect(log.collect()).toEqual([])
    mapping.write(pageSize - 1, new Uint8Array(2))
    expect(pagesOf(log.collect(), gpa, 4 * MiB)).toEqual([0, 1])
    vm.write(gpa + 3 * pageSize, new Uint8Array(1))
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

  test('memory behind several slots is told of at each, by whichever it was written', (context) => {
    need(context, mode)
    const mapping = Mapping.anonymous(16 * pageSize)
    vm.memslots.create({ gpa, mapping })
    vm.memslots.create({ gpa: 2 * gpa, mapping, offset: 8 * pageSize })
    const path = join(tmpdir(), `node-kvm-dirty-log-${process.pid}`)
    writeFileSync(path, new Uint8Array(16 * pageSize))
    const part = (offset: number) => Mapping.file(path, 16 * pageSize - offset, { offset, shared: true })
    try {
      vm.memslots.create({ gpa: 3 * gpa, mapping: part(0) })
      vm.memslots.create({ gpa: 4 * gpa, mapping: part(4 * pageSize) })
      using another = part(2 * pageSize)
      using log = vm.dirtyLog({ mode, ringEntries: 4096 })
      const guest = Guest.create(vm)
      log.collect()
      /** [slot in order of the GPAs, page] of what is dirty. */
      const dirty = () => log.collect().flatMap((range) => pagesOf([range], 0, 5 * gpa).map((page) => [Math.floor(page / 512), page % 512]))
      const dirtyAfter = (change: () => void) => {
        change()
        // Without the guest's own pages.
        return dirty().filter(([slot]) => slot! > 0)
      }
      const touch = (at: number) => () => expect(guest.touch(at, 1, 'write', 1).reason).toBe('done')
      expect(dirtyAfter(touch(gpa + 9 * pageSize))).toEqual([
        [1, 9],
        [2, 1]
      ])
      expect(dirtyAfter(touch(2 * gpa + 2 * pageSize))).toEqual([
        [1, 10],
        [2, 2]
      ])
      expect(dirtyAfter(touch(gpa + pageSize))).toEqual([[1, 1]])
      const both = [
        [3, 6],
        [4, 2]
      ]
      expect(dirtyAfter(touch(3 * gpa + 6 * pageSize))).toEqual(both)
      expect(dirtyAfter(touch(4 * gpa + 2 * pageSize))).toEqual(both)
      // By a mapping that stands behind no slot.
      expect(dirtyAfter(() => another.write(4 * pageSize, new Uint8Array(1)))).toEqual(both)
      expect(dirtyAfter(() => log.mark(4 * gpa + 2 * pageSize, 1))).toEqual(both)
      expect(dirtyAfter(() => {})).toEqual([])
    } finally {
      unlinkSync(path)
    }
  })

  test('run, collect, copy: in the end the copy is the memory, bit for bit', (context) => {
    need(context, mode)
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
    expect(Buffer.compare(copy, vm.read(gpa, copy.length))).toBe(0)
    expect(writer.counter).toBeGreaterThan(0)
  })

  test('under load: a guest writes on a thread of its own all the while, and in the end the copy is the memory', async (context) => {
    need(context, mode)
    const pages = inLab ? 259 : 1027
    const mapping = Mapping.anonymous(pages * pageSize)
    vm.memslots.create({ gpa, mapping })
    using log = vm.dirtyLog({ mode, ringEntries: 1024 })
    const writer = new Writer(vm, gpa, pages)
    writer.vcpu.setRegisters({ rcx: 1n << 62n })
    const copy = new Uint8Array(pages * pageSize)
    const ended = writer.vcpu.start({ 'dirty-ring-full': () => log.harvest() })
    await untilRunning(writer.vcpu)
    let inBetween = 0
    for (let round = 0; round < (inLab ? 6 : 60); round++) {
      const ranges = log.collect()
      if (round > 0) inBetween += pagesOf(ranges).length
      copyInto(copy, vm, ranges)
      mapping.write((round * 7919 * 64) % (mapping.size - 8), new Uint8Array(8).fill(round))
      await sleep(inLab ? 20 : 2)
    }
    await writer.vcpu.stop()
    expect(await ended).toEqual({ reason: 'stopped' })
    copyInto(copy, vm, log.collect())
    expect(Buffer.compare(copy, vm.read(gpa, copy.length))).toBe(0)
    expect(inBetween).toBeGreaterThan(0)
    expect(writer.counter).toBeGreaterThan(0)
  })

  test('a slot that is new, moved or bound elsewhere is dirty as a whole, a deleted one not at all', (context) => {
    need(context, mode)
    const slot = vm.memslots.create({ gpa, mapping: Mapping.anonymous(4 * pageSize) })
    using log = vm.dirtyLog({ mode })
    log.collect()
    const other = vm.memslots.create({ gpa: 2 * gpa, mapping: Mapping.anonymous(pageSize) })
    expect(log.collect()).toEqual([{ gpa: 2 * gpa, size: pageSize }])
    expect(other.logDirty).toBe(true)
    slot.move(3 * gpa)
    expect(log.collect()).toEqual([{ gpa: 3 * gpa, size: 4 * pageSize }])
    slot.move(gpa)
    slot.move(3 * gpa)
    expect(log.collect()).toEqual([{ gpa: 3 * gpa, size: 4 * pageSize }])
    slot.rebind(Mapping.anonymous(4 * pageSize))
    expect(log.collect()).toEqual([{ gpa: 3 * gpa, size: 4 * pageSize }])
    slot.delete()
    expect(log.collect()).toEqual([])
    // The number is used again, for another slot.
    const next = vm.memslots.create({ gpa, mapping: Mapping.anonymous(2 * pageSize) })
    expect(next.id).toBe(slot.id)
    expect(log.collect()).toEqual([{ gpa, size: 2 * pageSize }])
  })

  test.for(['here', 'elsewhere'])('logging turned off and on again %s: what was written before is told, as the whole slot is', (where, context) => {
    need(context, mode)
    const slot = vm.memslots.create({ gpa, mapping: Mapping.anonymous(4 * pageSize) })
    using log = vm.dirtyLog({ mode })
    const guest = Guest.create(vm)
    log.collect()
    guest.write(gpa + pageSize, 1n)
    using other = Vm.attach(vm.share())
    const theirs = where === 'here' ? slot : (other.memslots.lookup(gpa) as Memslot)
    theirs.setFlags({ logDirty: false })
    theirs.setFlags({ logDirty: true })
    expect(pagesOf(log.collect())).toEqual([0, 1, 2, 3])
    expect(pagesOf(log.collect())).toEqual([])
  })

  test('another environment turns logging off while collect() goes through the slots: the next one makes up for it', (context) => {
    need(context, mode)
    const slot = vm.memslots.create({ gpa, mapping: Mapping.anonymous(4 * pageSize) })
    using log = vm.dirtyLog({ mode })
    log.collect()
    using other = Vm.attach(vm.share())
    const next = vm.memslots.create({ gpa: 2 * gpa, mapping: Mapping.anonymous(pageSize) })
    const theirs = other.memslots.lookup(gpa) as Memslot
    // The new slot's logging is turned on: the old one was looked at before.
    const unwatch = watchChanges((change) => {
      if (change.of === 'memslot' && change.did === 'flags' && change.after?.id === next.id && theirs.logDirty) theirs.setFlags({ logDirty: false })
    })
    try {
      expect(log.collect()).toEqual([{ gpa: 2 * gpa, size: pageSize }])
    } finally {
      unwatch()
    }
    expect(theirs.logDirty).toBe(false)
    expect(pagesOf(log.collect(), gpa, 2 * gpa)).toEqual([0, 1, 2, 3])
    expect(slot.logDirty).toBe(true)
  })

  test('closed, it leaves the slots as they were', (context) => {
    need(context, mode)
    const logged = vm.memslots.create({ gpa, mapping: Mapping.anonymous(pageSize), logDirty: true })
    const plain = vm.memslots.create({ gpa: 2 * gpa, mapping: Mapping.anonymous(pageSize) })
    const log = vm.dirtyLog({ mode })
    expect(plain.logDirty).toBe(true)
    checkedError(() => vm.dirtyLog(), 'in-use')
    log.close()
    log.close()
    expect([logged.logDirty, plain.logDirty]).toEqual([true, false])
    checkedError(() => log.collect(), 'closed')
    checkedError(() => log.mark(gpa, 1), 'closed')
    const again = vm.dirtyLog({ mode })
    vm.close()
    expect(again.closed).toBe(true)
    checkedError(() => again.collect(), 'closed')
  })
})

function copyOf(mapping: Mapping, pages: number): Mapping {
  const copy = Mapping.anonymous(pages * pageSize)
  copy.write(0, mapping.read(0, pages * pageSize))
  return copy
}

test('a slot of more pages than V8 has memory for their bits is an error of the library', () => {
  expect(checkedError(() => new PageSet(2 ** 50), 'memory').errno).toBe('ENOMEM')
})

const bits = (bitmap: Uint8Array) => Array.from({ length: bitmap.length * 8 }, (_, bit) => bit).filter((bit) => (bitmap[bit >> 3]! >> (bit & 7)) & 1)
const bitmapOf = (length: number, ...set: number[]) => {
  const bitmap = new Uint8Array(length)
  for (const bit of set) bitmap[bit >> 3]! |= 1 << (bit & 7)
  return bitmap
}

test('F02 with manual protect, reading the bitmap clears nothing, and clearing clears what it names', (context) => {
  need(context, 'manual')
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

test('F03 a ring that is full is an exit, after which collecting lets the guest go on', (context) => {
  need(context, 'ring')
  const pages = 2048
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 1024 })
  log.collect()
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  for (let round = 0; round < 3; round++) {
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    // Without that it stays so.
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    const dirty = pagesOf(log.collect())
    expect(dirty.length).toBeGreaterThan(0)
    expect(dirty.length).toBeLessThanOrEqual(1024)
    for (const page of dirty) expect(page).toBeLessThan(pages)
  }
  // Taken over without being told of: nothing of it is lost.
  expect(writer.run(1_000_000)).toBe('dirty-ring-full')
  log.harvest()
  expect(log.collect().length).toBeGreaterThan(0)
})

test('F03 a full ring is handed back as a whole, whatever else the kernel has to do with this thread', (context) => {
  need(context, 'ring')
  skipWhereSlow(context)
  const pages = 2048
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 1024 })
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  let before = wordsOf(vm, gpa, pages)
  for (let round = 0; round < (inLab ? 30 : 300); round++) {
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    const dirty = pagesOf(log.collect())
    const words = wordsOf(vm, gpa, pages)
    expect(dirty).toEqual(expect.arrayContaining(changedPages(before, words)))
    before = words
  }
})

test('F03 signals that come while a ring is handed back lose nothing, and are not taken for an overflow', async (context) => {
  need(context, 'ring')
  skipWhereSlow(context)
  const pages = 900
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 4096 })
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  // V8's profiler sends one to this thread at each interval.
  const session = new Session()
  session.connect()
  try {
    session.post('Profiler.enable')
    session.post('Profiler.setSamplingInterval', { interval: 50 })
    session.post('Profiler.start')
    let before = wordsOf(vm, gpa, pages)
    for (let round = 0; round < 100; round++) {
      writer.run(pages)
      const dirty = pagesOf(log.collect())
      const words = wordsOf(vm, gpa, pages)
      expect(dirty).toEqual(expect.arrayContaining(changedPages(before, words)))
      before = words
    }
  } finally {
    session.disconnect()
  }
})

test('F03 rings come before vCPUs, in a size the kernel takes, and stay', (context) => {
  need(context, 'ring')
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

test('F03 what a vCPU wrote is told of after its end', (context) => {
  need(context, 'ring')
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(64 * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring' })
  const guest = Guest.create(vm)
  log.collect()
  guest.write(gpa + 9 * pageSize, 1n)
  guest.vcpu.close()
  expect(pagesOf(log.collect())).toEqual([9])
})

test('modes and options that are none', () => {
  expect(checkedError(() => vm.dirtyLog({ mode: 'none' as never }), 'argument').argument).toBe('mode')
  expect(checkedError(() => vm.dirtyLog({ modes: 'ring' } as never), 'argument').argument).toBe('modes')
})
