import { unlinkSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mapping, type Memslot, Vm } from 'node-kvm'
import { Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { watchChanges } from '../../lib/memory/changes.js'
import { PageSet } from '../../lib/memory/page-set.js'
import { changedPages, copyInto, gpa, modes, needsMode, pageSize, pagesOf } from '../support/dirty-log.js'
import { checkedError } from '../support/errors.js'
import { untilRunning } from '../support/running.js'
import { kvm, vm } from '../support/vm.js'
import { Writer, wordsOf } from '../support/writer.js'

// Cases F01 to F03.
describe.each(modes)('a dirty log with mode %s', (mode) => {
  test('tells of memory behind several slots at each, by whichever it was written', (context) => {
    needsMode(context, kvm, mode)
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
      /** The dirty pages, as [slot in the order of the GPAs, page]. */
      const dirty = () => log.collect().flatMap((range) => pagesOf([range], 0, 5 * gpa).map((page) => [Math.floor(page / 512), page % 512]))
      const dirtyAfter = (change: () => void) => {
        change()
        // The guest's own pages are left out.
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
      // This mapping stands behind no slot.
      expect(dirtyAfter(() => another.write(4 * pageSize, new Uint8Array(1)))).toEqual(both)
      expect(dirtyAfter(() => log.mark(4 * gpa + 2 * pageSize, 1))).toEqual(both)
      expect(dirtyAfter(() => {})).toEqual([])
    } finally {
      unlinkSync(path)
    }
  })

  test('makes a copy that is the memory in the end, though a guest writes all the while on a thread of its own', async (context) => {
    needsMode(context, kvm, mode)
    const pages = 1027
    const mapping = Mapping.anonymous(pages * pageSize)
    vm.memslots.create({ gpa, mapping })
    using log = vm.dirtyLog({ mode, ringEntries: 1024 })
    const writer = new Writer(vm, gpa, pages)
    writer.vcpu.registers.set({ rcx: 1n << 62n })
    const copy = new Uint8Array(pages * pageSize)
    const ended = writer.vcpu.start({ 'dirty-ring-full': () => log.harvest() })
    await untilRunning(writer.vcpu)
    let inBetween = 0
    for (let round = 0; round < 60; round++) {
      const ranges = log.collect()
      if (round > 0) inBetween += pagesOf(ranges).length
      copyInto(copy, vm, ranges)
      mapping.write((round * 7919 * 64) % (mapping.size - 8), new Uint8Array(8).fill(round))
      await sleep(2)
    }
    await writer.vcpu.stop()
    expect(await ended).toEqual({ reason: 'stopped' })
    copyInto(copy, vm, log.collect())
    expect(Buffer.compare(copy, vm.memory.read(gpa, copy.length))).toBe(0)
    expect(inBetween).toBeGreaterThan(0)
    expect(writer.counter).toBeGreaterThan(0)
  })

  test('has the whole of a slot that is new, moved or bound elsewhere, and nothing of a deleted one', (context) => {
    needsMode(context, kvm, mode)
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

  test.for(['here', 'elsewhere'])('has the whole of a slot whose logging was turned off and on again %s', (where, context) => {
    needsMode(context, kvm, mode)
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

  test('makes up in the next collect() for logging that another environment turned off during one', (context) => {
    needsMode(context, kvm, mode)
    const slot = vm.memslots.create({ gpa, mapping: Mapping.anonymous(4 * pageSize) })
    using log = vm.dirtyLog({ mode })
    log.collect()
    using other = Vm.attach(vm.share())
    const next = vm.memslots.create({ gpa: 2 * gpa, mapping: Mapping.anonymous(pageSize) })
    const theirs = other.memslots.lookup(gpa) as Memslot
    // The new slot's logging has been turned on; the old slot was looked at before.
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

  test('leaves the slots as they were when it is closed', (context) => {
    needsMode(context, kvm, mode)
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

test('a slot of more pages than an array of V8 has bits for is an error of the library', () => {
  checkedError(() => new PageSet(2 ** 60), 'limit')
})

// Case F03.
test('a full ring is handed back as a whole, whatever else the kernel has to do with this thread', (context) => {
  needsMode(context, kvm, 'ring')
  const pages = 2048
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 1024 })
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  let before = wordsOf(vm, gpa, pages)
  for (let round = 0; round < 300; round++) {
    expect(writer.run(1_000_000)).toBe('dirty-ring-full')
    const dirty = pagesOf(log.collect())
    const words = wordsOf(vm, gpa, pages)
    expect(dirty).toEqual(expect.arrayContaining(changedPages(before, words)))
    before = words
  }
})

// Case F03.
test('signals that come while a ring is handed back lose nothing, and are not taken for an overflow', async (context) => {
  needsMode(context, kvm, 'ring')
  const pages = 900
  vm.memslots.create({ gpa, mapping: Mapping.anonymous(pages * pageSize) })
  using log = vm.dirtyLog({ mode: 'ring', ringEntries: 4096 })
  const writer = new Writer(vm, gpa, pages)
  log.collect()
  // V8's profiler sends this thread a signal at each interval.
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

test('modes and options that do not exist are refused', () => {
  expect(checkedError(() => vm.dirtyLog({ mode: 'none' as never }), 'argument').argument).toBe('mode')
  expect(checkedError(() => vm.dirtyLog({ modes: 'ring' } as never), 'argument').argument).toBe('modes')
})
