import { KiB, Mapping, MiB } from 'node-kvm'
import { describeHost, type LeafColumns, type Mirror, mirror, summarize, type TraceEvent, tables, translate } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { describe, expect, type TestContext, test } from 'vitest'
import { MirroredEntries } from '../../lib/observe/tables/mirrored-entries.js'
import { tryReading } from '../../lib/observe/tables/reader.js'
import { whyNoMirror } from '../../lib/observe/tables/refusal.js'
import { decodeSpte } from '../../lib/x86/spte.js'
import { checkedError } from '../support/errors.js'
import { skip } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

/** Entries without the bits that the processor itself sets. */
const entriesOf = ({ gpa, hpa, level, addressSpace, kind }: LeafColumns) =>
  Array.from(gpa, (each, row) => ({ gpa: each, hpa: hpa[row], level: level[row], addressSpace: addressSpace[row], kind: kind[row] })).filter(
    (entry) => entry.kind !== 4
  )

describe('a mirror beside the tables themselves', () => {
  function needsBoth(context: TestContext): void {
    const why = whyNoMirror(describeHost())
    if (why) skip(context, `no mirror here: ${why}`)
    const refused = tryReading()
    if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  }
  function same(mirrored: Mirror): void {
    const { leaves, evidence } = tables(mirrored)
    expect(evidence).toMatchObject({ source: 'memslots', secondStage: 'events', lost: 0, missing: [] })
    expect(entriesOf(leaves)).toEqual(entriesOf(tables(vm).leaves))
  }

  test('has the same entries after touches, notifier calls, moves, rebinds, protections and dirty logging', (context) => {
    needsBoth(context)
    using mirrored = mirror(vm)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(64 * KiB)
    const slot = vm.memslots.create({ gpa: 0x10_0000, mapping: page })
    const touch = (gpa: number) => guest.touch(gpa, 16, 'write', 1)
    const changes = [
      () => touch(0x10_0000),
      () => page.advise('dontneed', 4 * KiB, 8 * KiB),
      () => touch(0x10_0000),
      () => page.remap(),
      () => slot.move(0x20_0000),
      () => touch(0x20_0000),
      // The same frames appear at the same GPAs, in tables of another root.
      () => slot.move(0x30_0000),
      () => slot.move(0x20_0000),
      () => touch(0x20_0000),
      () => page.protect('r'),
      () => guest.touch(0x20_0000, 16, 'read'),
      () => page.protect('rw'),
      () => slot.setFlags({ logDirty: true }),
      () => touch(0x20_0000),
      () => slot.dirtyPages(),
      () => touch(0x20_0000),
      () => slot.setFlags({ logDirty: false }),
      () => touch(0x20_0000),
      () => slot.rebind(Mapping.anonymous(64 * KiB)),
      () => touch(0x20_0000)
    ]
    for (const change of changes) {
      change()
      same(mirrored)
    }
    expect(tables(mirrored).leaves.gpa.length).toBeGreaterThanOrEqual(16)
    expect(translate(mirrored, 0x20_0008)).toMatchObject({ secondStage: { present: true, level: 1 }, evidence: { secondStage: 'events' } })
    slot.delete()
    expect(translate(mirrored, 0x20_0000).secondStage.present).toBe(false)
  })

  test('has huge entries, and what becomes of them when they are split by dirty logging or by one page given back', (context) => {
    needsBoth(context)
    using mirrored = mirror(vm)
    const guest = Guest.create(vm)
    const memory = Mapping.anonymous(4 * MiB, { hugePages: true })
    const gpa = 0x80_0000
    const slot = vm.memslots.create({ gpa, mapping: memory })
    guest.touch(gpa, 1024, 'write', 1)
    if (summarize(tables(vm)).mapped.huge2M === 0) skip(context, 'the host gave no huge page')
    same(mirrored)
    memory.advise('dontneed', 0x5000, 4 * KiB)
    same(mirrored)
    guest.touch(gpa, 1024, 'read')
    same(mirrored)
    slot.setFlags({ logDirty: true })
    same(mirrored)
    guest.touch(gpa, 1024, 'write', 2)
    same(mirrored)
  })

  test('says what it cannot know where it was begun too late, or in a process with another VM', (context) => {
    needsBoth(context)
    const guest = Guest.create(vm)
    guest.read(0x10_0000)
    using mirrored = mirror(vm)
    expect(tables(mirrored).evidence.missing).toMatchObject([expect.stringContaining('since the mirror began')])
    vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) }).move(0xe000)
    guest.write(0xe000, 1n)
    same(mirrored)
    const other = kvm.createVm()
    expect(tables(mirrored).evidence.missing).toMatchObject([expect.stringContaining('2 VMs')])
    other.close()
    mirrored.close()
    checkedError(() => tables(mirrored), 'closed')
  })
})

test('a mirror under shadow paging says why it would not be exact', (context) => {
  const why = whyNoMirror(describeHost())
  if (!why) skip(context, 'this host has the TDP MMU')
  expect(checkedError(() => mirror(vm), 'unavailable').message).toContain(why)
  expect(whyNoMirror({ mmu: 'shadow', tdpMmu: false })).toContain('no event tells')
  expect(whyNoMirror({ mmu: 'ept', tdpMmu: false })).toContain('TDP MMU is off')
})

describe('entries from events', () => {
  const present = 1n << 11n
  const huge = 1n << 7n
  const change = (gfn: number, before: bigint, after: bigint, { level = 1, thread = 1 } = {}) =>
    ({
      kind: 'spte-change',
      gfn,
      level,
      old: before,
      new: after,
      before: decodeSpte('ept', before, level),
      after: decodeSpte('ept', after, level),
      addressSpace: 0,
      thread,
      process: 1
    }) as unknown as TraceEvent
  const event = (kind: string, rest: object = {}) => ({ kind, thread: 1, process: 1, ...rest }) as unknown as TraceEvent
  const leaf = (hpa: bigint) => hpa | present | 7n
  const gone = 0n
  const seen = (...events: TraceEvent[]) => {
    const entries = new MirroredEntries('ept', 1)
    for (const each of events) entries.apply(each)
    const { gpa, hpa, level } = entries.columns()
    return Array.from(gpa, (each, row) => [each, hpa[row], level[row]])
  }

  test('are set, replaced and dropped', () => {
    expect(seen(change(10, gone, leaf(0x5000n)), change(2, gone, leaf(0x3000n)))).toEqual([
      [0x2000, 0x3000, 1],
      [0xa000, 0x5000, 1]
    ])
    expect(seen(change(10, gone, leaf(0x5000n)), change(10, leaf(0x5000n), leaf(0x6000n)))).toEqual([[0xa000, 0x6000, 1]])
    expect(seen(change(10, gone, leaf(0x5000n)), change(10, leaf(0x5000n), 0x5a0n))).toEqual([])
  })
  test('a table in the place of a huge entry holds its pages', () => {
    const split = seen(
      change(512, gone, leaf(0x4000_0000n) | huge, { level: 2 }),
      change(512, leaf(0x4000_0000n) | huge, 0x7000n | present | 7n, { level: 2 })
    )
    expect(split).toHaveLength(512)
    expect(split[0]).toEqual([0x20_0000, 0x4000_0000, 1])
    expect(split[511]).toEqual([0x3f_f000, 0x401f_f000, 1])
  })
  test('a zap of everything empties it; what its thread then tells the end of are the old tables', () => {
    const before = [change(10, gone, leaf(0x5000n)), event('zap-all')]
    expect(seen(...before)).toEqual([])
    // A vCPU on another thread set the same frame again before the old entry's end was reported.
    const refault = change(10, gone, leaf(0x5000n), { thread: 2 })
    expect(seen(...before, refault, change(10, leaf(0x5000n), gone))).toEqual([[0xa000, 0x5000, 1]])
    expect(seen(...before, refault, change(10, leaf(0x5000n), gone), change(10, leaf(0x5000n), gone))).toEqual([])
    // If a kernel worker ends the old tables unseen, the next event of the thread is about the new ones.
    expect(seen(...before, refault, event('notifier-unmap', { gpas: [] }), change(10, leaf(0x5000n), gone))).toEqual([])
  })
  test('pages that the kernel took back by itself are dropped by the range that its threads tell', () => {
    const gpas = [{ slot: 0, gpa: 0xa000, size: 0x1000 }]
    const both = [change(10, gone, leaf(0x5000n)), change(11, gone, leaf(0x6000n))]
    expect(seen(...both, event('notifier-unmap', { process: 7, thread: 7, gpas }))).toEqual([[0xb000, 0x6000, 1]])
    expect(seen(...both, event('notifier-unmap', { gpas }))).toHaveLength(2)
  })
})
