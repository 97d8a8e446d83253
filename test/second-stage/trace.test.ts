import { KiB, Mapping } from 'node-kvm'
import { statisticsGrowth, Trace, trace } from 'node-kvm/observe'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Tracefs } from '../../lib/observe/trace/tracefs.js'
import { inLab, skip } from '../support/skip.js'
import { Target } from '../support/target.js'
import { gpa, guest, hits, prepareEachTest, ram, touched } from '../support/traced.js'
import { ofKind, tellsViolations } from '../support/tracing.js'
import { vm } from '../support/vm.js'

prepareEachTest(() => vm)

describe('the events of a trace', () => {
  test('notifier calls follow the memslots: created, moved, deleted while it runs', () => {
    const outside = Mapping.anonymous(64 * KiB)
    outside.fill(1)
    using recording = trace(vm)
    outside.advise('dontneed')
    expect(recording.drain()).toEqual([])
    const slot = touched()
    ram.advise('dontneed', 0, 4 * KiB)
    expect(hits(recording.drain(), gpa)).toHaveLength(1)
    slot.move(0x20_0000)
    guest.touch(0x20_0000, 16, 'write', 1)
    ram.advise('dontneed', 0, 4 * KiB)
    const moved = recording.drain()
    expect(hits(moved, gpa)).toHaveLength(0)
    expect(hits(moved, 0x20_0000).filter(({ cause }) => cause?.kind === 'mapping')).toHaveLength(1)
    slot.delete()
    ram.fill(1)
    ram.advise('dontneed')
    const after = recording.drain()
    expect(ofKind(after, 'notifier-unmap').filter(({ hva }) => hva >= ram.address && hva < ram.address + ram.size)).toEqual([])
    expect(ofKind(after, 'mapping')).toEqual([])
  })

  test('the notifier call names both GPAs of one page', () => {
    for (const at of [gpa, 0x20_0000]) vm.memslots.create({ gpa: at, mapping: ram })
    guest.write(gpa, 1n)
    using recording = trace(vm)
    ram.advise('dontneed', 0, 4 * KiB)
    const [unmap] = ofKind(recording.drain(), 'notifier-unmap')
    expect(unmap?.gpas?.map((hit) => hit.gpa).sort()).toEqual([gpa, 0x20_0000].sort())
  })

  test('notifier calls are told everywhere where that is asked for, also for memory behind no memslot', () => {
    ram.fill(1)
    using recording = trace(vm, { everywhere: true, kinds: ['notifier-unmap', 'mapping'] })
    ram.advise('dontneed')
    const events = recording.drain()
    expect(ofKind(events, 'mapping')).toHaveLength(1)
    expect(ofKind(events, 'notifier-unmap').find(({ hva }) => hva === ram.address)).toMatchObject({
      size: 64 * KiB,
      gpas: [],
      cause: { kind: 'mapping' }
    })
  })

  test('only the kinds that were asked for are told', () => {
    touched()
    using recording = trace(vm, { kinds: ['notifier-unmap', 'pio', 'entry', 'exit'] })
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const kinds = new Set(recording.drain().map(({ kind }) => kind))
    expect([...kinds].filter((kind) => !['notifier-unmap', 'pio', 'entry', 'exit'].includes(kind))).toEqual([])
    expect(kinds).toContain('notifier-unmap')
    expect(kinds).toContain('pio')
    if (tellsViolations) expect([...kinds]).toEqual(expect.arrayContaining(['entry', 'exit']))
  })

  test('a tracepoint by name is told undecoded', () => {
    using recording = trace(vm, { kinds: [], tracepoints: ['kvm/kvm_userspace_exit'] })
    guest.read(0x4000_0000)
    const events = recording.drain()
    expect(events.length).toBeGreaterThan(0)
    // KVM_EXIT_IO is 2: the guest ends with a port write.
    expect(events.at(-1)).toMatchObject({ kind: 'raw', tracepoint: 'kvm/kvm_userspace_exit', raw: { reason: 2 } })
    expect(String(events.at(-1))).toContain('kvm/kvm_userspace_exit reason 0x2')
  })

  test('kinds that this kernel has no event for are told, and the rest goes on', () => {
    const { read } = Tracefs.prototype
    const spy = vi.spyOn(Tracefs.prototype, 'read').mockImplementation(function (this: Tracefs, event, file) {
      return event.startsWith('kvm/kvm_dirty_ring') || event === 'kvmmmu/kvm_mmu_split_huge_page' ? null : read.call(this, event, file)
    })
    using recording = trace(vm, { kinds: ['dirty-ring', 'huge-split', 'spte-set', 'memslot'] })
    spy.mockRestore()
    expect([...recording.unavailable].sort()).toEqual(['dirty-ring', 'huge-split'])
    touched()
    expect(new Set(recording.drain().map(({ kind }) => kind))).toEqual(new Set(['memslot', 'spte-set']))
  })

  test('the growth of statistics between two drains is the difference of the counters', () => {
    touched()
    const read = () => ({ vm: vm.stats.read(), vcpu: guest.vcpu.stats.read() })
    const before = read()
    using recording = trace(vm, { kinds: ['statistics', 'spte-set'] })
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const events = recording.drain()
    const after = read()
    const grown = ofKind(events, 'statistics')
    expect(grown.find(({ of }) => of === guest.vcpu.stats.describe().id)?.changes).toEqual(statisticsGrowth(before.vcpu, after.vcpu))
    expect(grown.find(({ of }) => of === vm.stats.describe().id)?.changes).toEqual(statisticsGrowth(before.vm, after.vm))
    expect(grown.find(({ of }) => of === guest.vcpu.stats.describe().id)?.changes['pf_taken']).toBeGreaterThan(0)
    expect(ofKind(recording.drain(), 'statistics')).toEqual([])
    expect(String(grown[0])).toContain('statistics of kvm-')
  })
})

describe('what was missed is counted', () => {
  const pages = 2048
  /** Touches that many pages for the first time, and returns how many entries were seen set. */
  function round(recording: Trace, memory: Mapping): number {
    memory.advise('dontneed')
    guest.touch(0x100_0000, pages, 'read')
    return ofKind(recording.drain(), 'spte-set').filter(({ gfn }) => gfn >= 0x1000 && gfn < 0x1000 + pages).length
  }
  let memory: Mapping
  beforeEach(() => {
    memory = Mapping.anonymous(pages * 4 * KiB, { hugePages: false })
    vm.memslots.create({ gpa: 0x100_0000, mapping: memory })
    guest.read(0x4000_0000)
  })

  test('where a ring is too small', (context) => {
    using recording = trace(vm, { kinds: ['spte-set'], tracepoints: ['kvmmmu/kvm_mmu_spte_requested'], ringSize: 4 * KiB })
    let rounds = 0
    let seen = 0
    // The reader may keep up with some dozens of records for a while, but not for long.
    for (; recording.lost === 0 && rounds < (inLab ? 20 : 100); rounds++) seen += round(recording, memory)
    // An emulated processor may touch pages more slowly than the reader reads the events.
    if (recording.lost === 0 && inLab) skip(context, `the reader kept up with ${seen} events`)
    expect(recording.lost).toBeGreaterThan(0)
    expect(seen).toBeLessThanOrEqual(rounds * pages)
    expect(seen + recording.lost).toBeGreaterThanOrEqual(rounds * pages)
  })

  test('where less is held than came', () => {
    using recording = trace(vm, { kinds: ['spte-set'], heldLimit: 16 * KiB })
    const seen = round(recording, memory)
    expect(seen).toBeLessThan(pages)
    expect(recording.lost).toBeGreaterThan(0)
    expect(seen + recording.lost).toBeGreaterThanOrEqual(pages)
  })

  test('where the library itself makes more calls than the limit, and the rows are right again after', () => {
    const slot = touched()
    using recording = trace(vm, { heldLimit: 8 * 256 })
    for (let round = 0; round < 20; round++) slot.move(0x200_0000 + round * 0x10_0000)
    recording.drain()
    expect(recording.lost).toBeGreaterThanOrEqual(12)
    guest.touch(slot.gpa, 1, 'write', 1)
    recording.drain()
    ram.advise('dontneed', 0, 4 * KiB)
    expect(hits(recording.drain(), slot.gpa)).toHaveLength(1)
  })
})

describe('the storm', () => {
  // In Bochs 262,144 pages take too long for a suite: `NODE_KVM_STORM=262144` asks for them.
  const pages = Number(process.env['NODE_KVM_STORM'] ?? (inLab?.startsWith('ept') ? 16_384 : 262_144))
  test(`every one of ${pages} first touches is seen, and none is lost`, () => {
    const big = Mapping.anonymous(pages * 4 * KiB, { hugePages: false })
    vm.memslots.create({ gpa: 0x5000_0000, mapping: big })
    guest.read(0x4000_0000)
    const taken = () => guest.vcpu.stats.read('pf_taken') as number | undefined
    const before = taken()
    using recording = trace(vm, { kinds: [tellsViolations ? 'violation' : 'spte-set'] })
    // A read maps the page of zeros, so a gigabyte of guest memory costs the host nothing.
    for (let page = 0; page < pages; page += 8192) guest.touch(0x5000_0000 + page * 4 * KiB, Math.min(8192, pages - page), 'read')
    const events = recording.drain()
    const after = taken()
    const touched = new Set(events.map((event) => (event.kind === 'violation' ? event.gpa / 4096 : event.kind === 'spte-set' ? event.gfn : 0)))
    expect(recording.lost).toBe(0)
    for (let page = 0; page < pages; page++) if (!touched.has(0x5_0000 + page)) expect.fail(`page ${page} was not seen`)
    if (!tellsViolations) return
    const violations = ofKind(events, 'violation').length
    expect(violations).toBeGreaterThanOrEqual(pages)
    if (before !== undefined && after !== undefined) expect(violations + recording.lost).toBe(after - before)
  })
})

describe("another process's VM", () => {
  let target: Target | undefined
  afterEach(() => target?.end())

  test('is traced by its events, and its notifier calls by the memslots that one tells', async () => {
    target = await Target.start()
    const { slots } = await target.do('slots', { count: 2, size: 64 * KiB })
    await target.do('guest')
    using recording = Trace.of({ processes: [target.pid], spteFormat: 'x86' })
    await target.do('touchAll')
    await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x1000, length: 4096 })
    const [slot] = slots.filter(({ id }: { id: number }) => id === 0)
    const unknown = ofKind(recording.drain(), 'notifier-unmap').find(({ hva }) => hva === slot.hva + 0x1000)
    expect(unknown).toMatchObject({ process: target.pid, size: 4096, gpas: null })
    recording.tellMemslots(slots)
    await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x2000, length: 4096 })
    expect(ofKind(recording.drain(), 'notifier-unmap')).toMatchObject([{ hva: slot.hva + 0x2000, gpas: [{ gpa: slot.gpa + 0x2000, size: 4096 }] }])
  })

  test('may end while it is traced', async () => {
    target = await Target.start()
    using recording = Trace.of({ processes: [target.pid], spteFormat: 'x86' })
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    await target.do('touchAll')
    await target.end()
    const events = recording.drain()
    expect(ofKind(events, 'spte-set').length).toBeGreaterThanOrEqual(16)
    expect(recording.drain()).toEqual([])
    expect(recording.lost).toBe(0)
  })
})
