// Traces a storm of first touches, and compares with C that reads the same rings and with trace_pipe, in interleaved rounds of one run. It prints and
// asserts nothing.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { KiB, Kvm, Mapping, MiB } from 'node-kvm'
import { describeHost, type TraceKind, trace } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'

const rounds = Number(process.argv[2] ?? 5)
const pages = Number(process.argv[3] ?? 262_144)
const chunk = 16_384
const ringSize = 4 * MiB
const base = 0x5000_0000
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-bench-'))
const program = join(folder, 'trace')
const median = (values: number[]) => values.slice().sort((a, b) => a - b)[values.length >> 1] as number
const tdp = describeHost().tdpMmu

// The tracepoints and filters are the same as those that these kinds open.
const kinds: TraceKind[] = tdp ? ['violation', 'spte-set', 'spte-change'] : ['spte-set']
const filtered = tdp
  ? [
      'kvm/kvm_exit:exit_reason == 48 || exit_reason == 49 || exit_reason == 1024',
      'kvm/kvm_page_fault',
      'kvmmmu/kvm_mmu_set_spte',
      'kvmmmu/mark_mmio_spte',
      'kvmmmu/kvm_tdp_mmu_spte_changed:(old_spte & 0x800) || (new_spte & 0x800)'
    ]
  : ['kvmmmu/kvm_mmu_set_spte', 'kvmmmu/mark_mmio_spte']

using kvm = Kvm.open()
using vm = kvm.createVm()
const guest = Guest.create(vm)
const memory = Mapping.anonymous(pages * 4 * KiB, { hugePages: false })
vm.memslots.create({ gpa: base, mapping: memory })

/** Returns nanoseconds for each page. All pages are the page of zeros, so that KVM causes the work of the storm, and not the allocator. */
function storm(): number {
  memory.advise('dontneed')
  const start = process.hrtime.bigint()
  for (let page = 0; page < pages; page += chunk) guest.touch(base + page * 4 * KiB, Math.min(chunk, pages - page), 'read')
  return Number(process.hrtime.bigint() - start) / pages
}

interface Result {
  perPage: number
  /** The cost of one event that is read and decoded. */
  perEvent: number
  events: number
  lost: number
}

/** Nanoseconds for each event, by all threads of the process: other programs on the machine do not count. */
const processorTime: number[] = []
function ours(): Result {
  using recording = trace(vm, { kinds, ringSize })
  const perPage = storm()
  const start = process.hrtime.bigint()
  const before = process.cpuUsage()
  const events = recording.drain().length
  const { user, system } = process.cpuUsage(before)
  processorTime.push(((user + system) * 1000) / events)
  return { perPage, perEvent: Number(process.hrtime.bigint() - start) / events, events, lost: recording.lost }
}

async function other(...words: string[]): Promise<Result> {
  const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  if ((await lines.next()).done) throw new Error('the reader in C did not begin')
  const perPage = storm()
  child.stdin.end()
  const [events = 0, lost = 0, spent = 0] = String((await lines.next()).value)
    .split(' ')
    .map(Number)
  return { perPage, perEvent: spent / events, events, lost }
}

const results = {
  untraced: [] as Result[],
  'node-kvm': [] as Result[],
  'C, the same rings': [] as Result[],
  trace_pipe: [] as Result[]
}
const line = (name: string, all: Result[]) => {
  const of = (part: keyof Result) => median(all.map((one) => one[part]))
  const rate = of('events') === 0 ? '-' : (1e3 / of('perEvent')).toFixed(2)
  return `${name.padEnd(20)} ${of('perPage').toFixed(0).padStart(12)} ${String(of('events')).padStart(10)} ${String(of('lost')).padStart(8)} ${rate.padStart(22)}`
}
/** The ratio of two kinds of storm, round by round. */
const ratio = (one: Result[], two: Result[], part: keyof Result) => median(one.map((result, round) => result[part] / (two[round] as Result)[part]))

try {
  execFileSync('gcc', ['-O2', '-o', program, 'bench/trace.c'], { stdio: 'inherit' })
  ours()
  for (let round = 0; round < rounds; round++) {
    results.untraced.push({ perPage: storm(), perEvent: 0, events: 0, lost: 0 })
    results['node-kvm'].push(ours())
    results['C, the same rings'].push(await other('ring', String(process.pid), String(ringSize), ...filtered))
    results.trace_pipe.push(await other('pipe', String(process.pid), ...filtered))
  }
  console.log(`${pages} first touches, ${kinds.join(', ')}; medians of ${rounds} rounds`)
  console.log(`${''.padEnd(20)} ${'ns a page'.padStart(12)} ${'events'.padStart(10)} ${'lost'.padStart(8)} ${'million events/s read'.padStart(22)}`)
  for (const [name, all] of Object.entries(results)) console.log(line(name, all))
  console.log(
    `storm while node-kvm traces, to while C does: ${ratio(results['node-kvm'], results['C, the same rings'], 'perPage').toFixed(3)} (goal 1.1)`
  )
  console.log(`storm while node-kvm traces, to untraced:     ${ratio(results['node-kvm'], results.untraced, 'perPage').toFixed(3)}`)
  console.log(`events decoded in a second of processor time: ${(1e3 / median(processorTime)).toFixed(2)} million (goal 1)`)
  console.log(`nanoseconds an event, node-kvm to C:          ${ratio(results['node-kvm'], results['C, the same rings'], 'perEvent').toFixed(2)}`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
