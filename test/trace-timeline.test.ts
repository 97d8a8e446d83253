import { decodeSpte, type TraceEvent, timeline } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import { Causes } from '../lib/trace/causes.js'

const entry = 0x6000000000a0b77n
/** Events as a trace makes them, from what differs; a microsecond apart. */
function story(...parts: (Partial<TraceEvent> & { kind: TraceEvent['kind'] })[]): TraceEvent[] {
  const causes = new Causes()
  return parts.map((part, index) => {
    const event = { time: (index + 1) * 1000, elapsed: (index + 1) / 1000, process: 1, thread: 1, cpu: 0, raw: {}, ...part } as unknown as TraceEvent
    causes.follow(event)
    return event
  })
}
const change = (gfn: number, old: bigint, now: bigint, more: object = {}) => ({
  kind: 'spte-change' as const,
  gfn,
  level: 1,
  old,
  new: now,
  before: decodeSpte('ept', old, 1),
  after: decodeSpte('ept', now, 1),
  wasPresent: old !== 0n,
  isPresent: now !== 0n,
  addressSpace: 0,
  ...more
})
const set = (gfn: number) => ({ kind: 'spte-set' as const, gfn, level: 1, spte: entry, decoded: decodeSpte('ept', entry, 1), mmio: false })
const violation = (gpa: number, more: object = {}) => ({
  kind: 'violation' as const,
  vcpu: 0,
  gpa,
  access: 'read' as const,
  present: false,
  rip: 0x1000n,
  ...more
})
const unmap = (gpa: number, size: number, more: object = {}) => ({
  kind: 'notifier-unmap' as const,
  hva: 0x7000_0000 + gpa,
  size,
  gpas: [{ slot: 0, gpa, size }],
  ...more
})
const call = (more: object) => ({ kind: 'mapping' as const, did: 'advise(dontneed)', hva: 0x7000_a000, size: 4096, duration: 5000, ...more })
const kindsOf = (events: TraceEvent[]) => events.map(({ cause }) => cause?.kind)

describe('causes', () => {
  test('a call, its notifier call, the entry it took, the access after', () => {
    const events = story(call({}), unmap(0xa000, 4096), change(0xa, entry, 0n), violation(0xa000), change(0xa, 0n, entry), set(0xa))
    expect(kindsOf(events)).toEqual([undefined, 'mapping', 'notifier-unmap', 'notifier-unmap', 'violation', 'violation'])
  })
  test("another thread's notifier call during a call is not the call's", () => {
    expect(kindsOf(story(call({}), unmap(0xa000, 4096, { thread: 2 })))).toEqual([undefined, undefined])
  })
  test("nor is one of other memory, nor one after the call's end", () => {
    expect(kindsOf(story(call({}), unmap(0xb000, 4096)))).toEqual([undefined, undefined])
    expect(kindsOf(story(call({ duration: 500 }), unmap(0xa000, 4096)))).toEqual([undefined, undefined])
  })
  test('of ksmd: the entry that it took, in its thread', () => {
    const [, dropped] = story(unmap(0xa000, 4096, { thread: 33 }), change(0xa, entry, 0n, { thread: 33 }))
    expect(dropped?.cause).toMatchObject({ kind: 'notifier-unmap', thread: 33 })
  })
  test('an entry outside what the notifier call hit was not taken by it; nor one taken after something else', () => {
    expect(kindsOf(story(unmap(0xa000, 4096), change(0xb, entry, 0n)))).toEqual([undefined, undefined])
    expect(kindsOf(story(unmap(0xa000, 4096), violation(0xc000), change(0xa, entry, 0n)))).toEqual([undefined, undefined, undefined])
  })
  test('a slot change takes entries, whatever notifier call came before', () => {
    const slot = { id: 0, gpa: 0xa000, size: 4096, hva: 0x7000_a000 }
    const moved = { kind: 'memslot' as const, did: 'move' as const, before: slot, after: { ...slot, gpa: 0xe000 }, duration: 5000 }
    const events = story(unmap(0xa000, 4096), moved, { kind: 'zap-all' }, change(0xa, entry, 0n))
    expect(kindsOf(events)).toEqual([undefined, undefined, 'memslot', 'memslot'])
  })
  test('copy on write: the notifier call and the drop are of the access; the next one has no cause in it', () => {
    const events = story(
      violation(0xa000, { present: true, access: 'write' }),
      unmap(0xa000, 4096),
      change(0xa, entry, 0n),
      change(0xa, 0n, entry),
      set(0xa),
      violation(0xa000, { access: 'write' })
    )
    expect(kindsOf(events)).toEqual([undefined, 'violation', 'notifier-unmap', 'violation', 'violation', undefined])
  })
  test('a first touch after every entry was dropped is no return', () => {
    expect(kindsOf(story(change(0xa, entry, 0n), { kind: 'zap-all' }, violation(0xb000)))).toEqual([undefined, undefined, undefined])
  })
  test('where no entry is told of: the page comes back by what swept over it since it was set', () => {
    const events = story(set(0xa), unmap(0xa000, 4096), set(0xa), set(0xa), set(0xb))
    expect(kindsOf(events)).toEqual([undefined, undefined, 'notifier-unmap', undefined, undefined])
  })
  test('an emulated access is of its violation', () => {
    const mmio = { kind: 'mmio' as const, access: 'write' as const, gpa: 0xa008, length: 8, value: 0n }
    expect(kindsOf(story(violation(0xa008), mmio))).toEqual([undefined, 'violation'])
  })
})

describe('the timeline', () => {
  test('tells what led to what, and the access after as a story of its own', () => {
    const events = story(call({}), unmap(0xa000, 4096), change(0xa, entry, 0n), violation(0xa000), change(0xa, 0n, entry), set(0xa))
    expect(timeline(events)).toBe(
      [
        '     0.001 ms  mapping advise(dontneed) 0x7000a000 4 KiB',
        '      +1.0 us    -> notifier unmap 0x7000a000-0x7000b000 -> gpa 0xa000-0xb000 (slot 0)',
        '      +2.0 us      -> spte gfn 0xa level 1: rwx hpa 0xa0000 -> none',
        '     0.004 ms  violation gpa 0xa000 read (not present) at rip 0x1000, after mapping advise(dontneed)',
        '      +1.0 us    -> spte gfn 0xa level 1: none -> rwx hpa 0xa0000',
        '      +2.0 us    -> spte gfn 0xa level 1 set: rwx hpa 0xa0000'
      ].join('\n')
    )
  })
  test('stories that differ in addresses alone are told once', () => {
    const events = story(...[0xa, 0xb, 0xc].flatMap((gfn) => [violation(gfn * 4096), change(gfn, 0n, entry), set(gfn)]))
    expect(timeline(events)).toBe(
      [
        '     0.001 ms  violation gpa 0xa000 … 0xc000 read (not present) at rip 0x1000 x3',
        '      +1.0 us    -> spte gfn 0xa … 0xc level 1: none -> rwx hpa 0xa0000',
        '      +2.0 us    -> spte gfn 0xa … 0xc level 1 set: rwx hpa 0xa0000'
      ].join('\n')
    )
  })
  test('an event whose cause was drained before begins a story', () => {
    const events = story(call({}), unmap(0xa000, 4096))
    expect(timeline(events.slice(1))).toMatch(/^ +0.002 ms {2}notifier unmap/)
    expect(timeline([])).toBe('')
  })
})
