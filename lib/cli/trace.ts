/** `node-kvm trace`: shows what KVM does for a program, or for a VMM that already runs. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { KiB, MiB } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { opening } from '../abi/exhausted.js'
import { json as toJson, visible } from '../abi/text.js'
import { spteFormat } from '../observe/host.js'
import type { HostVm } from '../observe/tables/host-vms.js'
import type { TraceEvent, TraceKind } from '../observe/trace/events.js'
import { timeline } from '../observe/trace/timeline.js'
import type { Trace, TraceOptions } from '../observe/trace/trace.js'
import { allKinds, defaultKinds, ownKinds } from '../observe/trace/tracepoints.js'
import { command, laneUsage, parseNumber, refuseWords, UsageError } from './command.js'
import { paint } from './paint.js'

const kernelKinds = allKinds.filter((kind) => !ownKinds.includes(kind) && kind !== 'raw')
const shownKinds = defaultKinds.filter((kind) => !ownKinds.includes(kind))

const usage = `usage: node-kvm trace [OPTIONS] [--lane LANE [--kernel K]] -- PROGRAM...
       node-kvm trace [OPTIONS] --pid PID

  runs a program and prints what KVM does for its VMs: violations, second-stage changes, MMU-notifier calls; with --pid of one that runs
  already, QEMU or any other. The status is the program's. Ctrl-C ends it, with a summary

  --pid PID            until it ends, or Ctrl-C
  --kinds K,K...       ${shownKinds.join(', ')} without it; 'all', or of these too:
                       ${kernelKinds.filter((kind) => !shownKinds.includes(kind)).join(', ')}
  --tracepoints T,T... others by name, undecoded: kvm/kvm_userspace_exit
  --everywhere         notifier calls for memory behind no memslot, too
  --ring-size BYTES    of each CPU; 4M without it
  --out FILE           the trace goes there; otherwise to standard output, and the program's own output to standard error
  --json               one object a line, the last a summary
${laneUsage}

  Memslots are read from outside while it runs (BPF, as node-kvm map does), four times a second: a notifier call is matched with those of
  the last reading. What a program of this library does itself (memslot, mapping, statistics) only trace(vm) in that program can tell.`

const options = {
  pid: { type: 'string' },
  kinds: { type: 'string' },
  tracepoints: { type: 'string' },
  everywhere: { type: 'boolean' },
  'ring-size': { type: 'string' },
  out: { type: 'string' },
  json: { type: 'boolean' }
} as const

interface Values {
  pid?: string | undefined
  kinds?: string | undefined
  tracepoints?: string | undefined
  everywhere?: boolean | undefined
  'ring-size'?: string | undefined
  out?: string | undefined
  json?: boolean | undefined
}

const intervalMs = 250
/** The largest part of the time that may be spent reading memslots. */
const readingShare = 0.1

function kindsOf(text: string | undefined): readonly TraceKind[] {
  if (text === undefined) return shownKinds
  if (text === 'all') return kernelKinds
  const names = text.split(',').filter(Boolean)
  const own = names.find((name) => ownKinds.includes(name as TraceKind))
  if (own) throw new UsageError(`--kinds ${own}: only the traced program itself knows of these: trace(vm) in it`)
  const unknown = names.find((name) => !kernelKinds.includes(name as TraceKind))
  if (unknown !== undefined) throw new UsageError(`--kinds has no '${unknown}'; there are ${kernelKinds.join(', ')}`)
  return names as TraceKind[]
}

function sizeOf(text: string): number {
  const [, digits, unit] = /^(\d+)([KM]?)$/i.exec(text) ?? []
  const size = Number(digits) * ({ K: KiB, M: MiB }[unit?.toUpperCase() ?? ''] ?? 1)
  if (!(size >= 4 * KiB && size <= 1024 * MiB && Number.isInteger(Math.log2(size))))
    throw new UsageError(`--ring-size is '${text}'; it must be a power of two of bytes from 4K to 1024M`)
  return size
}

function traceOptions(values: Values): TraceOptions {
  return {
    kinds: kindsOf(values.kinds),
    everywhere: values.everywhere ?? false,
    ...(values.tracepoints !== undefined && { tracepoints: values.tracepoints.split(',').filter(Boolean) }),
    ...(values['ring-size'] !== undefined && { ringSize: sizeOf(values['ring-size']) })
  }
}

function openOutput(path: string): number {
  try {
    return opening(`opening ${path} for the trace`, () => openSync(path, 'w'))
  } catch (error) {
    if (error instanceof KvmError) throw error
    throw new KvmError('argument', `${(error as Error).message}; --out names a file that can be written`, { argument: 'out' })
  }
}

/** The destination of the trace. Its reader may leave at any time. */
class Output implements Disposable {
  readonly #fd: number
  #gone = false
  constructor(path: string | undefined) {
    this.#fd = path === undefined ? 1 : openOutput(path)
  }
  line(text: string): void {
    if (text === '' || this.#gone) return
    const bytes = Buffer.from(`${text}\n`)
    for (let done = 0; done < bytes.length && !this.#gone; ) {
      try {
        done += writeSync(this.#fd, bytes, done)
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code !== 'EAGAIN') this.#gone = true
      }
    }
  }
  [Symbol.dispose](): void {
    if (this.#fd !== 1) closeSync(this.#fd)
  }
}

/** Counts the events so far. */
class Tally {
  readonly counts: Partial<Record<TraceKind, number>> = {}
  readonly processes = new Set<number>()
  readonly #started = Date.now()
  total = 0
  add(events: readonly TraceEvent[]): void {
    this.total += events.length
    for (const { kind, process: pid } of events) {
      this.counts[kind] = (this.counts[kind] ?? 0) + 1
      this.processes.add(pid)
    }
  }
  get seconds(): number {
    return (Date.now() - this.#started) / 1000
  }
}

/** One changing line on standard error, if that is a terminal. */
const progress = {
  shown: process.stderr.isTTY === true,
  say(text: string): void {
    if (this.shown) process.stderr.write(`\r\x1b[K${text}`)
  }
}

/** The memslots of other processes, as far as BPF may read them. */
class OthersMemslots {
  /** How many memslots the last reading found; `why` says why none were read. */
  found = 0
  why: string | undefined
  #notBefore = 0
  readonly #hostVms: () => HostVm[]

  constructor(hostVms: () => HostVm[]) {
    this.#hostVms = hostVms
  }

  tell(trace: Trace, isOurs: (pid: number) => boolean): void {
    const started = Date.now()
    if (this.why !== undefined || started < this.#notBefore) return
    const all = this.#hostVms().filter(({ pid }) => isOurs(pid))
    this.#notBefore = Date.now() + (Date.now() - started) / readingShare
    const missing = all.find(({ evidence }) => evidence.source !== 'bpf')
    if (missing) this.why = missing.evidence.missing[0] ?? 'they were not read'
    const slots = all.flatMap(({ memslots }) => memslots)
    this.found = slots.length
    if (slots.length > 0) trace.tellMemslots(slots)
  }
}

function summaryText(tally: Tally, trace: Trace, memslots: OthersMemslots): string {
  const parts = Object.entries(tally.counts).map(([kind, count]) => `${count} ${kind}`)
  const lost = trace.lost > 0 ? paint('red', `${trace.lost} lost: raise --ring-size`) : paint('green', 'none lost')
  return [
    `${tally.total} events in ${tally.seconds.toFixed(1)} s, ${lost}${parts.length > 0 ? `: ${parts.join(', ')}` : ''}`,
    ...(trace.unavailable.length > 0 ? [`this kernel has no events for: ${trace.unavailable.join(', ')}`] : []),
    ...(memslots.why === undefined ? [] : [`notifier calls were not matched with memslots: ${visible(memslots.why)}`])
  ].join('\n')
}

interface Watched {
  /** Returns true when there is nothing more to come. */
  ended(): boolean
  isOurs(pid: number, tally: Tally): boolean
}

async function follow(trace: Trace, watched: Watched, output: Output, json: boolean): Promise<void> {
  const tally = new Tally()
  const { hostVms } = await import('../observe/tables/host-vms.js')
  const memslots = new OthersMemslots(hostVms)
  const step = () => {
    memslots.tell(trace, (pid) => watched.isOurs(pid, tally))
    const events = trace.drain()
    tally.add(events)
    progress.say('')
    output.line(json ? events.map((event) => toJson(event)).join('\n') : timeline(events))
    progress.say(`trace: ${tally.total} events, ${trace.lost} lost, ${tally.seconds.toFixed(0)} s`)
  }
  for (let last = false; !last; ) {
    last = watched.ended()
    if (!last) await sleep(intervalMs)
    step()
  }
  progress.say('')
  const { counts, total: events } = tally
  output.line(
    json
      ? toJson({ kind: 'summary', events, lost: trace.lost, counts, unavailable: trace.unavailable, memslots: memslots.found })
      : summaryText(tally, trace, memslots)
  )
}

/** Calls `stop` at each Ctrl-C while `work` runs. */
async function interruptible<T>(stop: (signal: NodeJS.Signals) => void, work: () => Promise<T>): Promise<T> {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, stop)
  try {
    return await work()
  } finally {
    for (const signal of signals) process.off(signal, stop)
  }
}

/** Loads the parts that need the add-on only here, since --help works without it. */
async function open(subject: { processes: number[]; children?: true }, values: Values): Promise<Trace> {
  const options = traceOptions(values)
  const { Trace } = await import('../observe/trace/trace.js')
  return Trace.of({ ...subject, spteFormat: spteFormat() }, options)
}

async function tracePid(pid: number, values: Values): Promise<number> {
  if (!existsSync(`/proc/${pid}`)) throw new KvmError('argument', `there is no process ${pid} here; node-kvm map lists those that run VMs`, { pid })
  using output = new Output(values.out)
  using trace = await open({ processes: [pid] }, values)
  let stopped = false
  const stop = () => {
    stopped = true
  }
  const watched = { ended: () => stopped || isGone(pid), isOurs: (other: number) => other === pid }
  await interruptible(stop, () => follow(trace, watched, output, values.json ?? false))
  return 0
}

// A zombie no longer runs.
function isGone(pid: number): boolean {
  try {
    // The state comes after the name, which may contain anything, even something that looks like a state.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return /^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
  } catch {
    return true
  }
}

/** Returns the status that a shell would give. */
const statusOf = ({ exitCode, signalCode }: ChildProcess) => exitCode ?? 128 + (signalCode ? constants.signals[signalCode] : 0)

async function traceProgram([name = '', ...args]: string[], values: Values): Promise<number> {
  using output = new Output(values.out)
  // The trace begins before the program starts, and knows the program as a child of this process.
  using trace = await open({ processes: [process.pid], children: true }, values)
  const child = spawn(name, args, { stdio: ['inherit', values.out === undefined ? 2 : 'inherit', 'inherit'] })
  const failed = await new Promise<Error | undefined>((resolve) => child.once('spawn', () => resolve(undefined)).once('error', resolve))
  if (failed) {
    console.error(`node-kvm trace: ${visible(name)} cannot be run: ${(failed as NodeJS.ErrnoException).code}`)
    return 127
  }
  let asked = 0
  // Ctrl-C on a terminal also reaches the program. If the program ignores it, the third one ends the program.
  const stop = (signal: NodeJS.Signals) => {
    asked++
    if (asked > 2) child.kill('SIGKILL')
    else if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
  }
  const watched = {
    ended: () => child.exitCode !== null || child.signalCode !== null,
    isOurs: (pid: number, { processes }: Tally) => pid === child.pid || processes.has(pid)
  }
  await interruptible(stop, () => follow(trace, watched, output, values.json ?? false))
  return statusOf(child)
}

/** Runs the trace. It ends with the program's exit status. */
export const trace = command({
  usage,
  options,
  inLanes: true,
  run(values, words, program) {
    refuseWords(words)
    if ((values.pid === undefined) === (program.length === 0)) throw new UsageError('it takes either --pid, or a program behind --')
    return values.pid === undefined ? traceProgram(program, values) : tracePid(parseNumber('pid', values.pid), values)
  }
})
