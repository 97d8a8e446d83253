// Does to guest memory everything that stimuli.ts lists, and checks what KVM reports. With NODE_KVM_OBSERVATIONS=FOLDER it writes its observations
// there: docs/observations holds such files, from which scripts/observing.mjs makes docs/observing.md.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { KiB, Kvm } from 'node-kvm'
import { describeHost, type TraceEvent, trace } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { afterAll, describe, expect, type TestContext, test } from 'vitest'
import { needsKvm, needsRoot } from '../support/needs.js'
import { inLab, skip } from '../support/skip.js'
import { base, defaultMemory, Impossible, makeFolder, type Place, removeFolder, type Stimulus, stimuli } from '../support/stimuli.js'
import { tally } from '../support/tally.js'
import { needsTracing, ofKind, tellsViolations } from '../support/tracing.js'

type Counts = Record<string, number>
interface Observation {
  stimulus: string
  atOnce?: Counts
  next?: Counts
  /** Why it was not seen here. */
  missing?: string
}
const observations: Observation[] = []
const folder = makeFolder()

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim().replace(/\d+$/, '')
  } catch {
    return 'another'
  }
}

/**
 * Events come in the order of time, a violation is the cause of each entry that is set, and a notifier call names the range of each entry that it
 * drops.
 */
function checkInvariants(events: readonly TraceEvent[]): void {
  const times = events.map(({ time }) => time)
  expect(times).toEqual(times.slice().sort((one, other) => one - other))
  if (!tellsViolations) {
    expect(ofKind(events, 'violation')).toEqual([])
    return
  }
  for (const set of ofKind(events, 'spte-set').filter(({ gfn, mmio }) => gfn * 4096 >= base && !mmio)) expect(set.cause?.kind).toBe('violation')
  for (const { cause, gfn } of ofKind(events, 'spte-change').filter(({ after, addressSpace }) => !after.present && addressSpace === 0)) {
    if (cause?.kind === 'notifier-unmap') expect(cause.gpas?.some((hit) => hit.gpa + hit.size > gfn * 4096)).toBe(true)
  }
}

function expectKinds(counts: Counts, has: readonly string[], hasNot: readonly string[]): void {
  const seen = Object.keys(counts)
  const is = (name: string) =>
    seen.some((key) => key === name || key.startsWith(`${name} by `) || (!/level|MMIO/.test(name) && key.startsWith(`${name} level`)))
  expect({ missing: has.filter((name) => !is(name)), unwanted: hasNot.filter(is), seen }).toEqual({ missing: [], unwanted: [], seen })
}

async function observe(stimulus: Stimulus, context: TestContext): Promise<void> {
  const { pages = 4, size = 64 * KiB, memory = defaultMemory, slot: options = {}, before, act, after } = stimulus
  using kvm = Kvm.open()
  using vm = kvm.createVm()
  needsTracing(context, vm)
  const guest = Guest.create(vm)
  const mapping = memory(size, folder)
  const slot = vm.memslots.create({ gpa: base, mapping, ...options })
  const place: Place = { vm, guest, mapping, slot, gpa: base, path: join(folder, 'memory') }
  // The guest touches its own pages now, so that they are not counted.
  guest.read(0x4000_0000)
  if (before) guest.touch(base, pages, before, 1)
  stimulus.prepare?.(place)
  using recording = trace(vm)
  await act(place)
  const first = recording.drain()
  // The address to which the slot moved, or the one at which it was.
  const at = [...vm.memslots].find((one) => one === slot)?.gpa ?? base
  if (after) guest.touch(at, pages, after, 2)
  const second = recording.drain()
  const [atOnce, next] = [tally(first, nameOf), tally(second, nameOf)]
  observations.push({ stimulus: stimulus.name, atOnce, ...(after && { next }) })
  expect(recording.lost).toBe(0)
  checkInvariants([...first, ...second])
  const tdp = tellsViolations ? (stimulus.tdp ?? []) : []
  const nextTdp = tellsViolations ? (stimulus.nextTdp ?? []) : []
  expectKinds(atOnce, [...(stimulus.has ?? []), ...tdp], stimulus.hasNot ?? [])
  if (after) expectKinds(next, [...(stimulus.next ?? []), ...nextTdp], stimulus.nextNot ?? [])
}

describe('what is seen', () => {
  for (const stimulus of stimuli)
    test(`${stimulus.name} shows what it must, and not what it must not`, async (context) => {
      needsKvm(context)
      needsRoot(context, 'do to memory what the stimuli do, and to see frames')
      try {
        await observe(stimulus, context)
      } catch (error) {
        if (!(error instanceof Impossible)) throw error
        observations.push({ stimulus: stimulus.name, missing: error.message })
        skip(context, error.message)
      }
    })
})

afterAll(() => {
  removeFolder(folder)
  const target = process.env['NODE_KVM_OBSERVATIONS']
  if (target === undefined) return
  const { kernel, mmu, tdpMmu, module } = describeHost()
  const [version = kernel] = /^\d+\.\d+/.exec(kernel) ?? []
  mkdirSync(target, { recursive: true })
  const found = { lane: inLab ?? mmu, kernel: version, mmu, module, tdpMmu, observations }
  writeFileSync(join(target, `${found.lane}-${version}.json`), `${JSON.stringify(found, null, 2)}\n`)
})

describe('the catalogue', () => {
  const stored = readdirSync('docs/observations').filter((name) => name.endsWith('.json'))
  test('is that of the stored observations', () => {
    execFileSync(process.execPath, ['scripts/observing.mjs', '--check'])
  })
  test.each(stored)('%s has every stimulus', (name) => {
    const { observations: all } = JSON.parse(readFileSync(join('docs/observations', name), 'utf8'))
    expect(all.map((one: Observation) => one.stimulus)).toEqual(stimuli.map((one) => one.name))
  })
})
