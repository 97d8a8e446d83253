import { spawnSync } from 'node:child_process'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { Guest, KiB, Mapping, statisticsGrowth, Trace, type TraceEvent, type TraceKind, timeline } from 'node-kvm'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Tracefs } from '../lib/trace/tracefs.js'
import { inLab, skip } from './support/skip.js'
import { Target } from './support/target.js'
import { needsTracing, ofKind, tellsViolations } from './support/tracing.js'
import { vm } from './support/vm.js'

const gpa = 0x10_0000
const hits = (events: readonly TraceEvent[], at: number) =>
  ofKind(events, 'notifier-unmap').filter(({ gpas }) => gpas?.some((hit) => at >= hit.gpa && at < hit.gpa + hit.size))
/** The causes of an event, first its own. */
function causes(event: TraceEvent): TraceKind[] {
  return event.cause ? [event.cause.kind, ...causes(event.cause)] : []
}

let guest: Guest
let ram: Mapping
beforeEach((context) => {
  needsTracing(context, vm)
  guest = Guest.create(vm)
  ram = Mapping.anonymous(64 * KiB, { hugePages: false })
})
/** A memslot over `ram` that the guest touched. */
function touched() {
  const slot = vm.memslots.create({ gpa, mapping: ram })
  guest.touch(gpa, 16, 'write', 1)
  return slot
}

describe('what happened', () => {
  test('is in order of time, in one clock with the own calls', () => {
    touched()
    using trace = vm.trace()
    const before = Number(process.hrtime.bigint())
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const events = trace.drain()
    const after = Number(process.hrtime.bigint())
    const times = events.map(({ time }) => time)
    expect(times).toEqual(times.slice().sort((one, other) => one - other))
    expect(times[0]).toBeGreaterThanOrEqual(before)
    expect(times.at(-1)).toBeLessThanOrEqual(after)
    expect(events[0]).toMatchObject({ kind: 'mapping', did: 'advise(dontneed)', hva: ram.address, size: 64 * KiB, process: process.pid })
    expect(ofKind(events, 'spte-set').filter(({ decoded }) => decoded.present).length).toBeGreaterThanOrEqual(16)
    expect(trace.lost).toBe(0)
    expect(events.every(({ process: pid, elapsed }) => pid === process.pid && elapsed >= 0)).toBe(true)
  })

  test('from madvise to the new entry: each caused by the one before', () => {
    using trace = vm.trace()
    touched()
    trace.drain()
    ram.advise('dontneed', 0x2000, 4 * KiB)
    guest.read(gpa + 0x2000)
    const events = trace.drain()
    const unmap = hits(events, gpa + 0x2000)[0] as TraceEvent
    expect(unmap).toMatchObject({ kind: 'notifier-unmap', hva: ram.address + 0x2000, size: 4 * KiB, gpas: [{ gpa: gpa + 0x2000, size: 4 * KiB }] })
    expect(causes(unmap)).toEqual(['mapping'])
    const set = ofKind(events, 'spte-set').find(({ gfn, decoded }) => gfn === (gpa + 0x2000) / 4096 && decoded.present) as TraceEvent
    expect(causes(set)).toEqual(tellsViolations ? ['violation', 'notifier-unmap', 'mapping'] : ['notifier-unmap', 'mapping'])
    if (tellsViolations) {
      const dropped = ofKind(events, 'spte-change').find(({ after }) => !after.present)
      expect(dropped).toMatchObject({ gfn: (gpa + 0x2000) / 4096, level: 1, before: { present: true }, cause: unmap })
    }
    expect(timeline(events)).toMatch(
      /^ +[\d.]+ ms +mapping advise\(dontneed\) 0x[0-9a-f]+ 4 KiB\n +\+.* us +-> notifier unmap .* -> gpa 0x102000-0x103000/
    )
  })

  test('a violation tells the access, and a first one has no cause', (context) => {
    if (!tellsViolations) skip(context, 'shadow paging: the guest takes no violations that KVM has an event for')
    vm.memslots.create({ gpa, mapping: ram })
    using trace = vm.trace()
    guest.read(gpa)
    guest.write(gpa + 0x1000, 1n)
    const events = ofKind(trace.drain(), 'violation')
    const [read] = events.filter((event) => event.gpa === gpa)
    const [write] = events.filter((event) => event.gpa === gpa + 0x1000)
    expect(read).toMatchObject({ access: 'read', present: false, vcpu: 0 })
    expect(read?.cause).toBeUndefined()
    expect(['read', 'write']).toContain(write?.access)
    expect(read?.qualification).toMatchObject(
      'dataRead' in (read?.qualification ?? {}) ? { dataRead: true, readable: false } : { present: false, write: false }
    )
    expect(read?.raw).toMatchObject({ fault_address: BigInt(gpa) })
  })

  test('copy on write: the notifier call is of the access, not of a call', () => {
    const slot = vm.memslots.create({ gpa, mapping: ram })
    guest.read(gpa)
    using trace = vm.trace()
    guest.write(gpa, 7n)
    const events = trace.drain()
    const [unmap] = hits(events, gpa)
    expect(unmap).toMatchObject({ hva: slot.hva, size: 4 * KiB })
    expect(causes(unmap as TraceEvent)[0]).toBe(tellsViolations ? 'violation' : undefined)
    expect(ofKind(events, 'mapping')).toEqual([])
  })

  test('moving a slot: a memslot event, and zaps that it caused', () => {
    const slot = touched()
    using trace = vm.trace()
    slot.move(0x20_0000)
    const events = trace.drain()
    expect(events[0]).toMatchObject({ kind: 'memslot', did: 'move', before: { gpa }, after: { gpa: 0x20_0000 } })
    const [zap] = ofKind(events, 'zap-all')
    expect(zap?.cause).toBe(events[0])
    const zapped = tellsViolations ? ofKind(events, 'spte-change').filter(({ after }) => !after.present) : ofKind(events, 'zap-page')
    expect(zapped.length).toBeGreaterThan(0)
    expect(new Set(zapped.map(({ cause }) => cause))).toEqual(new Set([events[0]]))
  })

  test('a call explains nothing outside its own range and time', () => {
    const other = Mapping.anonymous(64 * KiB)
    vm.memslots.create({ gpa: 0x20_0000, mapping: other })
    touched()
    guest.touch(0x20_0000, 16, 'write', 1)
    using trace = vm.trace()
    ram.advise('dontneed', 0, 4 * KiB)
    spawnSync('true')
    other.advise('dontneed', 0, 4 * KiB)
    const events = trace.drain()
    for (const unmap of ofKind(events, 'notifier-unmap')) {
      const call = unmap.cause as { hva: number; size: number; time: number; duration: number } | undefined
      if (!call) continue
      expect(unmap.hva < call.hva + call.size && call.hva < unmap.hva + unmap.size).toBe(true)
      expect(unmap.time).toBeLessThanOrEqual(call.time + call.duration)
    }
    expect(hits(events, gpa).some(({ cause }) => cause?.kind === 'mapping')).toBe(true)
    expect(hits(events, 0x20_0000).some(({ cause }) => cause?.kind === 'mapping')).toBe(true)
  })

  test('as text and as JSON', () => {
    touched()
    using trace = vm.trace()
    ram.advise('dontneed', 0, 4 * KiB)
    guest.write(gpa, 7n)
    for (const event of trace.drain()) {
      expect(String(event)).toMatch(/^\+[\d.]+ [a-z]/)
      const plain = JSON.parse(JSON.stringify(event))
      expect(plain).toMatchObject({ kind: event.kind, time: event.time, process: process.pid, thread: event.thread })
      if (event.kind === 'spte-set')
        expect(plain).toMatchObject({ gfn: event.gfn, spte: `0x${event.spte.toString(16)}`, decoded: { hpa: event.decoded.hpa } })
      if (event.cause) expect(plain.cause).toEqual({ kind: event.cause.kind, time: event.cause.time })
    }
  })
})

describe('which events', () => {
  test('notifier calls follow the memslots: created, moved, deleted while it runs', () => {
    const outside = Mapping.anonymous(64 * KiB)
    outside.fill(1)
    using trace = vm.trace()
    outside.advise('dontneed')
    expect(trace.drain()).toEqual([])
    const slot = touched()
    ram.advise('dontneed', 0, 4 * KiB)
    expect(hits(trace.drain(), gpa)).toHaveLength(1)
    slot.move(0x20_0000)
    guest.touch(0x20_0000, 16, 'write', 1)
    ram.advise('dontneed', 0, 4 * KiB)
    const moved = trace.drain()
    expect(hits(moved, gpa)).toHaveLength(0)
    expect(hits(moved, 0x20_0000).filter(({ cause }) => cause?.kind === 'mapping')).toHaveLength(1)
    slot.delete()
    ram.fill(1)
    ram.advise('dontneed')
    const after = trace.drain()
    expect(ofKind(after, 'notifier-unmap').filter(({ hva }) => hva >= ram.address && hva < ram.address + ram.size)).toEqual([])
    expect(ofKind(after, 'mapping')).toEqual([])
  })

  test('one page at two GPAs: the notifier call names both', () => {
    for (const at of [gpa, 0x20_0000]) vm.memslots.create({ gpa: at, mapping: ram })
    guest.write(gpa, 1n)
    using trace = vm.trace()
    ram.advise('dontneed', 0, 4 * KiB)
    const [unmap] = ofKind(trace.drain(), 'notifier-unmap')
    expect(unmap?.gpas?.map((hit) => hit.gpa).sort()).toEqual([gpa, 0x20_0000].sort())
  })

  test('everywhere: also for memory behind no memslot', () => {
    ram.fill(1)
    using trace = vm.trace({ everywhere: true, kinds: ['notifier-unmap', 'mapping'] })
    ram.advise('dontneed')
    const events = trace.drain()
    expect(ofKind(events, 'mapping')).toHaveLength(1)
    expect(ofKind(events, 'notifier-unmap').find(({ hva }) => hva === ram.address)).toMatchObject({
      size: 64 * KiB,
      gpas: [],
      cause: { kind: 'mapping' }
    })
  })

  test('only the kinds asked for', () => {
    touched()
    using trace = vm.trace({ kinds: ['notifier-unmap', 'pio', 'entry', 'exit'] })
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const kinds = new Set(trace.drain().map(({ kind }) => kind))
    expect([...kinds].filter((kind) => !['notifier-unmap', 'pio', 'entry', 'exit'].includes(kind))).toEqual([])
    expect(kinds).toContain('notifier-unmap')
    expect(kinds).toContain('pio')
    if (tellsViolations) expect([...kinds]).toEqual(expect.arrayContaining(['entry', 'exit']))
  })

  test('a tracepoint by name, undecoded', () => {
    using trace = vm.trace({ kinds: [], tracepoints: ['kvm/kvm_userspace_exit'] })
    guest.read(0x4000_0000)
    const events = trace.drain()
    expect(events.length).toBeGreaterThan(0)
    // KVM_EXIT_IO is 2: the guest says that it is done by a port write.
    expect(events.at(-1)).toMatchObject({ kind: 'raw', tracepoint: 'kvm/kvm_userspace_exit', raw: { reason: 2 } })
    expect(String(events.at(-1))).toContain('kvm/kvm_userspace_exit reason 0x2')
  })

  test('kinds that this kernel has no event for are told, and the rest goes on', () => {
    const { read } = Tracefs.prototype
    const spy = vi.spyOn(Tracefs.prototype, 'read').mockImplementation(function (this: Tracefs, event, file) {
      return event.startsWith('kvm/kvm_dirty_ring') || event === 'kvmmmu/kvm_mmu_split_huge_page' ? null : read.call(this, event, file)
    })
    using trace = vm.trace({ kinds: ['dirty-ring', 'huge-split', 'spte-set', 'memslot'] })
    spy.mockRestore()
    expect([...trace.unavailable].sort()).toEqual(['dirty-ring', 'huge-split'])
    touched()
    expect(new Set(trace.drain().map(({ kind }) => kind))).toEqual(new Set(['memslot', 'spte-set']))
  })

  test('statistics: the growth between two drains is the difference of the counters', () => {
    touched()
    const read = () => ({ vm: vm.stats.read(), vcpu: guest.vcpu.stats.read() })
    const before = read()
    using trace = vm.trace({ kinds: ['statistics', 'spte-set'] })
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const events = trace.drain()
    const after = read()
    const grown = ofKind(events, 'statistics')
    expect(grown.find(({ of }) => of === guest.vcpu.stats.id)?.changes).toEqual(statisticsGrowth(before.vcpu, after.vcpu))
    expect(grown.find(({ of }) => of === vm.stats.id)?.changes).toEqual(statisticsGrowth(before.vm, after.vm))
    expect(grown.find(({ of }) => of === guest.vcpu.stats.id)?.changes['pf_taken']).toBeGreaterThan(0)
    expect(ofKind(trace.drain(), 'statistics')).toEqual([])
    expect(String(grown[0])).toContain('statistics of kvm-')
  })
})

describe('reading it', () => {
  test('async iteration gives events as they come, and ends with close', async () => {
    touched()
    const trace = vm.trace()
    const seen: TraceEvent[] = []
    const done = (async () => {
      for await (const event of trace) {
        seen.push(event)
        if (event.kind === 'memslot') trace.close()
      }
    })()
    ram.advise('dontneed')
    while (hits(seen, gpa).length === 0) await sleep(1)
    expect(trace.closed).toBe(false)
    vm.memslots.create({ gpa: 0x40_0000, mapping: ram })
    await done
    expect(seen.at(-1)).toMatchObject({ kind: 'memslot', did: 'create' })
  })

  test('a close from elsewhere ends who waits', async () => {
    const trace = vm.trace()
    const next = trace[Symbol.asyncIterator]().next()
    await turn()
    trace.close()
    expect(await next).toEqual({ done: true, value: undefined })
  })

  test('close: no more events, the losses stay, a second one does nothing', () => {
    const trace = vm.trace()
    touched()
    trace.close()
    trace.close()
    expect(trace.closed).toBe(true)
    expect(trace.drain()).toEqual([])
    expect(trace.lost).toBe(0)
  })
})

describe('what was missed is counted', () => {
  const pages = 2048
  /** Touches that many pages for the first time; how many were seen set. */
  function round(trace: Trace, memory: Mapping): number {
    memory.advise('dontneed')
    guest.touch(0x100_0000, pages, 'read')
    return ofKind(trace.drain(), 'spte-set').filter(({ gfn }) => gfn >= 0x1000 && gfn < 0x1000 + pages).length
  }
  let memory: Mapping
  beforeEach(() => {
    memory = Mapping.anonymous(pages * 4 * KiB, { hugePages: false })
    vm.memslots.create({ gpa: 0x100_0000, mapping: memory })
    guest.read(0x4000_0000)
  })

  test('a ring too small', (context) => {
    using trace = vm.trace({ kinds: ['spte-set'], tracepoints: ['kvmmmu/kvm_mmu_spte_requested'], ringSize: 4 * KiB })
    let rounds = 0
    let seen = 0
    // The reader may keep up with some dozens of records for a while, but not for long.
    for (; trace.lost === 0 && rounds < (inLab ? 20 : 100); rounds++) seen += round(trace, memory)
    // An emulated processor may touch pages more slowly than they are read about.
    if (trace.lost === 0 && inLab) skip(context, `the reader kept up with ${seen} events`)
    expect(trace.lost).toBeGreaterThan(0)
    expect(seen).toBeLessThanOrEqual(rounds * pages)
    expect(seen + trace.lost).toBeGreaterThanOrEqual(rounds * pages)
  })

  test('less held than came', () => {
    using trace = vm.trace({ kinds: ['spte-set'], heldLimit: 16 * KiB })
    const seen = round(trace, memory)
    expect(seen).toBeLessThan(pages)
    expect(trace.lost).toBeGreaterThan(0)
    expect(seen + trace.lost).toBeGreaterThanOrEqual(pages)
  })

  test('calls of the library itself beyond the limit, and the rows are right again after', () => {
    const slot = touched()
    using trace = vm.trace({ heldLimit: 8 * 256 })
    for (let round = 0; round < 20; round++) slot.move(0x200_0000 + round * 0x10_0000)
    trace.drain()
    expect(trace.lost).toBeGreaterThanOrEqual(12)
    guest.touch(slot.gpa, 1, 'write', 1)
    trace.drain()
    ram.advise('dontneed', 0, 4 * KiB)
    expect(hits(trace.drain(), slot.gpa)).toHaveLength(1)
  })
})

describe('the storm', () => {
  // In Bochs 262,144 take too long for a suite: `NODE_KVM_STORM=262144` asks for them.
  const pages = Number(process.env['NODE_KVM_STORM'] ?? (inLab?.startsWith('ept') ? 16_384 : 262_144))
  test(`${pages} first touches: every one is seen, none lost`, () => {
    const big = Mapping.anonymous(pages * 4 * KiB, { hugePages: false })
    vm.memslots.create({ gpa: 0x5000_0000, mapping: big })
    guest.read(0x4000_0000)
    const taken = () => guest.vcpu.stats.read('pf_taken') as number | undefined
    const before = taken()
    using trace = vm.trace({ kinds: [tellsViolations ? 'violation' : 'spte-set'] })
    // A read maps the page of zeros: a gigabyte of guest memory costs the host nothing.
    for (let page = 0; page < pages; page += 8192) guest.touch(0x5000_0000 + page * 4 * KiB, Math.min(8192, pages - page), 'read')
    const events = trace.drain()
    const after = taken()
    const touched = new Set(events.map((event) => (event.kind === 'violation' ? event.gpa / 4096 : event.kind === 'spte-set' ? event.gfn : 0)))
    expect(trace.lost).toBe(0)
    for (let page = 0; page < pages; page++) if (!touched.has(0x5_0000 + page)) expect.fail(`page ${page} was not seen`)
    if (!tellsViolations) return
    const violations = ofKind(events, 'violation').length
    expect(violations).toBeGreaterThanOrEqual(pages)
    if (before !== undefined && after !== undefined) expect(violations + trace.lost).toBe(after - before)
  })
})

describe("another process's VM", () => {
  let target: Target | undefined
  afterEach(() => target?.end())

  test('its events, and notifier calls by the memslots one tells', async () => {
    target = await Target.start()
    const { slots } = await target.do('slots', { count: 2, size: 64 * KiB })
    await target.do('guest')
    using trace = Trace.of({ processes: [target.pid], spteFormat: 'x86' })
    await target.do('touchAll')
    await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x1000, length: 4096 })
    const [slot] = slots.filter(({ id }: { id: number }) => id === 0)
    const unknown = ofKind(trace.drain(), 'notifier-unmap').find(({ hva }) => hva === slot.hva + 0x1000)
    expect(unknown).toMatchObject({ process: target.pid, size: 4096, gpas: null })
    trace.tellMemslots(slots)
    await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x2000, length: 4096 })
    expect(ofKind(trace.drain(), 'notifier-unmap')).toMatchObject([{ hva: slot.hva + 0x2000, gpas: [{ gpa: slot.gpa + 0x2000, size: 4096 }] }])
  })

  test('that ends while traced', async () => {
    target = await Target.start()
    using trace = Trace.of({ processes: [target.pid], spteFormat: 'x86' })
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    await target.do('touchAll')
    await target.end()
    const events = trace.drain()
    expect(ofKind(events, 'spte-set').length).toBeGreaterThanOrEqual(16)
    expect(trace.drain()).toEqual([])
    expect(trace.lost).toBe(0)
  })
})
