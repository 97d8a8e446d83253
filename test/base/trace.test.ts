import { spawnSync } from 'node:child_process'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { KiB, Mapping } from 'node-kvm'
import { type TraceEvent, timeline, trace } from 'node-kvm/observe'
import { describe, expect, test } from 'vitest'
import { skip } from '../support/skip.js'
import { causes, gpa, guest, hits, prepareEachTest, ram, touched } from '../support/traced.js'
import { ofKind, tellsViolations } from '../support/tracing.js'
import { vm } from '../support/vm.js'

prepareEachTest(() => vm)

describe('what happened', () => {
  test('is in order of time, in one clock with the own calls', () => {
    touched()
    using recording = trace(vm)
    const before = Number(process.hrtime.bigint())
    ram.advise('dontneed')
    guest.touch(gpa, 16, 'write', 1)
    const events = recording.drain()
    const after = Number(process.hrtime.bigint())
    const times = events.map(({ time }) => time)
    expect(times).toEqual(times.slice().sort((one, other) => one - other))
    expect(times[0]).toBeGreaterThanOrEqual(before)
    expect(times.at(-1)).toBeLessThanOrEqual(after)
    expect(events[0]).toMatchObject({ kind: 'mapping', did: 'advise(dontneed)', hva: ram.address, size: 64 * KiB, process: process.pid })
    expect(ofKind(events, 'spte-set').filter(({ decoded }) => decoded.present).length).toBeGreaterThanOrEqual(16)
    expect(recording.lost).toBe(0)
    expect(events.every(({ process: pid, elapsed }) => pid === process.pid && elapsed >= 0)).toBe(true)
  })

  test('each event from madvise to the new entry is caused by the one before', () => {
    using recording = trace(vm)
    touched()
    recording.drain()
    ram.advise('dontneed', 0x2000, 4 * KiB)
    guest.read(gpa + 0x2000)
    const events = recording.drain()
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
    using recording = trace(vm)
    guest.read(gpa)
    guest.write(gpa + 0x1000, 1n)
    const events = ofKind(recording.drain(), 'violation')
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

  test('the notifier call of copy on write belongs to the access, and not to a call', () => {
    const slot = vm.memslots.create({ gpa, mapping: ram })
    guest.read(gpa)
    using recording = trace(vm)
    guest.write(gpa, 7n)
    const events = recording.drain()
    const [unmap] = hits(events, gpa)
    expect(unmap).toMatchObject({ hva: slot.hva, size: 4 * KiB })
    expect(causes(unmap as TraceEvent)[0]).toBe(tellsViolations ? 'violation' : undefined)
    expect(ofKind(events, 'mapping')).toEqual([])
  })

  test('a move of a slot is a memslot event, and makes zaps that it caused', () => {
    const slot = touched()
    using recording = trace(vm)
    slot.move(0x20_0000)
    const events = recording.drain()
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
    using recording = trace(vm)
    ram.advise('dontneed', 0, 4 * KiB)
    spawnSync('true')
    other.advise('dontneed', 0, 4 * KiB)
    const events = recording.drain()
    for (const unmap of ofKind(events, 'notifier-unmap')) {
      const call = unmap.cause as { hva: number; size: number; time: number; duration: number } | undefined
      if (!call) continue
      expect(unmap.hva < call.hva + call.size && call.hva < unmap.hva + unmap.size).toBe(true)
      expect(unmap.time).toBeLessThanOrEqual(call.time + call.duration)
    }
    expect(hits(events, gpa).some(({ cause }) => cause?.kind === 'mapping')).toBe(true)
    expect(hits(events, 0x20_0000).some(({ cause }) => cause?.kind === 'mapping')).toBe(true)
  })

  test('can be printed as text and as JSON', () => {
    touched()
    using recording = trace(vm)
    ram.advise('dontneed', 0, 4 * KiB)
    guest.write(gpa, 7n)
    for (const event of recording.drain()) {
      expect(String(event)).toMatch(/^\+[\d.]+ [a-z]/)
      const plain = JSON.parse(JSON.stringify(event))
      expect(plain).toMatchObject({ kind: event.kind, time: event.time, process: process.pid, thread: event.thread })
      if (event.kind === 'spte-set')
        expect(plain).toMatchObject({ gfn: event.gfn, spte: `0x${event.spte.toString(16)}`, decoded: { hpa: event.decoded.hpa } })
      if (event.cause) expect(plain.cause).toEqual({ kind: event.cause.kind, time: event.cause.time })
    }
  })
})

describe('reading a trace', () => {
  test('async iteration gives events as they come, and ends with close', async () => {
    touched()
    const recording = trace(vm)
    const seen: TraceEvent[] = []
    const done = (async () => {
      for await (const event of recording) {
        seen.push(event)
        if (event.kind === 'memslot') recording.close()
      }
    })()
    ram.advise('dontneed')
    while (hits(seen, gpa).length === 0) await sleep(1)
    expect(recording.closed).toBe(false)
    vm.memslots.create({ gpa: 0x40_0000, mapping: ram })
    await done
    expect(seen.at(-1)).toMatchObject({ kind: 'memslot', did: 'create' })
  })

  test('a close from elsewhere ends who waits', async () => {
    const recording = trace(vm)
    const next = recording[Symbol.asyncIterator]().next()
    await turn()
    recording.close()
    expect(await next).toEqual({ done: true, value: undefined })
  })

  test('a closed trace gives no more events, keeps its losses, and may be closed again', () => {
    const recording = trace(vm)
    touched()
    recording.close()
    recording.close()
    expect(recording.closed).toBe(true)
    expect(recording.drain()).toEqual([])
    expect(recording.lost).toBe(0)
  })
})
