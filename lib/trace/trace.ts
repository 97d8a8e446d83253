/** KVM's translation, watched: typed events out of tracepoints and the library's own calls, in one order. */
import { readlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import { argumentError, checkBoolean, checkInteger, checkOneOf, checkOptions, MiB, pageSize } from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { type NativeTracer, native } from '../abi/native.js'
import type { SpteFormat } from '../abi/spte.js'
import { type Change, type MemslotRow, watchChanges } from '../memory/changes.js'
import type { Memslots } from '../memory/memslots.js'
import { Causes } from './causes.js'
import type { TraceEvent, TraceKind } from './events.js'
import { type Format, parseFormat } from './format.js'
import { Cursor, dataOf, Event, idOf, merge, Recorded } from './records.js'
import { Coverage, Rows } from './rows.js'
import { Tracefs } from './tracefs.js'
import { allKinds, type DecodeContext, defaultKinds, type Fill, ownKinds, type Tracepoint, tracepoints } from './tracepoints.js'

/** Of {@link Vm.trace} and {@link Trace.of}. */
export interface TraceOptions {
  /** Which kinds of event; those of the three tables if absent, without each exit, entry and emulated instruction. */
  kinds?: readonly TraceKind[]
  /** Notifier calls for any memory of the process, not only for memory behind memslots. */
  everywhere?: boolean
  /** Bytes of each CPU's ring: a power of two, at least 4 KiB. 4 MiB if absent. */
  ringSize?: number
  /** Bytes held between two drains; what comes beyond is lost, and counted. 256 MiB if absent. */
  heldLimit?: number
}

/** What is traced. */
export interface TraceSubject {
  /** The VM's own table, where it is this process's. */
  memslots?: Memslots
  spteFormat: SpteFormat
  /** Process ids; none means every process of the host. */
  processes: readonly number[]
  /** And what those fork. */
  children?: boolean
}

const optionNames = ['kinds', 'everywhere', 'ringSize', 'heldLimit'] as const
const now = () => Number(process.hrtime.bigint())

interface Source {
  point: Tracepoint
  format: Format
  fill: Fill
}

/** So that a trace that was dropped without close() can be collected, and its thread and rings with it. */
function watchWeakly(trace: Trace, watcher: (trace: Trace, change: Change) => void): () => void {
  const reference = new WeakRef(trace)
  const unwatch = watchChanges((change) => {
    const alive = reference.deref()
    if (alive) watcher(alive, change)
    else unwatch()
  })
  return unwatch
}

/**
 * A running trace. It holds what happened until it is drained; `using` or close() ends it.
 * @example
 * using trace = vm.trace()
 * vm.memslots.create({ gpa: 0xa000, mapping: page }).move(0xe000)
 * for (const event of trace.drain()) console.log(event.kind, event.elapsed)
 * trace.lost   // 0
 */
export class Trace implements Disposable, AsyncIterable<TraceEvent> {
  /** Kinds that were asked for and that this kernel has no event for. */
  readonly unavailable: readonly TraceKind[]
  /** When it began: nanoseconds of CLOCK_MONOTONIC. */
  readonly start = now()
  readonly #tracer: NativeTracer
  readonly #sources = new Map<number, Source>()
  readonly #context: DecodeContext
  readonly #causes = new Causes()
  readonly #coverage = new Coverage()
  readonly #unwatch: () => void
  readonly #own = { process: process.pid, thread: Number(readlinkSync('/proc/thread-self').split('/').pop()) }
  #changes: Change[] = []
  #cursors: Cursor[] = []
  #lost = 0
  #socket: Socket | undefined
  #closed = false

  /**
   * Begins.
   * @throws KvmError `permission` without CAP_PERFMON (or root), `unavailable` without tracefs, `argument`
   */
  static of(subject: TraceSubject, options: TraceOptions = {}): Trace {
    checkOptions('options', options, optionNames)
    return new Trace(subject, options)
  }

  private constructor(subject: TraceSubject, options: TraceOptions) {
    const { kinds = defaultKinds, everywhere = subject.memslots === undefined, ringSize = 4 * MiB, heldLimit = 256 * MiB } = options
    for (const kind of kinds) checkOneOf('kinds', kind, allKinds)
    checkBoolean('everywhere', everywhere)
    checkInteger('ringSize', ringSize, pageSize, 2 ** 30)
    if (!Number.isInteger(Math.log2(ringSize))) throw argumentError('ringSize', ringSize, 'a power of two')
    checkInteger('heldLimit', heldLimit, 0, 2 ** 40)
    this.#context = {
      wanted: new Set(kinds),
      spteFormat: subject.spteFormat,
      rows: new Rows(),
      everywhere,
      faulting: new Map(),
      misconfigs: new Map()
    }
    this.#findSources()
    const found = new Set([...this.#sources.values()].flatMap(({ point }) => point.kinds))
    this.unavailable = [...this.#context.wanted].filter((kind) => !found.has(kind) && !ownKinds.includes(kind))
    this.#tracer = this.#open(subject, ringSize, heldLimit)
    this.#seed(subject.memslots)
    this.#unwatch = watchWeakly(this, (trace, change) => trace.#changed(change, subject.memslots))
  }

  #findSources(): void {
    using tracefs = new Tracefs()
    for (const point of tracepoints) {
      if (!point.kinds.some((kind) => this.#context.wanted.has(kind))) continue
      const text = tracefs.read(point.event, 'format')
      if (text === null) continue
      const format = parseFormat(point.event, text)
      this.#sources.set(format.id, { point, format, fill: point.decoder(format, this.#context) })
    }
  }

  #open(subject: TraceSubject, ringSize: number, heldLimit: number): NativeTracer {
    const events = [...this.#sources.values()].map(({ point, format }) => ({
      id: format.id,
      startOffset: format.fields.get(point.range?.[0] ?? '')?.offset ?? 0,
      endOffset: format.fields.get(point.range?.[1] ?? '')?.offset ?? 0,
      filter: point.filter?.(this.#context.wanted) ?? ''
    }))
    const tracer = native.trace({ events, processes: [...subject.processes], children: subject.children ?? false, ringSize, heldLimit })
    if (typeof tracer !== 'number') return tracer
    const errno = errnoName(tracer)
    if (errno === 'EACCES' || errno === 'EPERM')
      throw new KvmError(
        'permission',
        `opening tracepoints: ${errno}; tracing needs CAP_PERFMON (root has it), and lockdown not to be 'confidentiality'; see node-kvm doctor`,
        { errno }
      )
    const advice: Record<string, string> = {
      EMFILE: 'raise the limit of open files (ulimit -n): each event takes one a CPU',
      ENOMEM: 'a smaller ringSize, or a higher /proc/sys/kernel/perf_event_mlock_kb'
    }
    throw new KvmError('unavailable', `opening tracepoints: ${errno}${advice[errno] ? `; ${advice[errno]}` : ''}`, { errno })
  }

  #seed(memslots: Memslots | undefined): void {
    for (const { id, gpa, size, hva } of memslots ?? []) this.#reach({ id, gpa, size, hva }, true)
    if (!this.#context.everywhere) this.#tracer.setRanges(this.#coverage.bounds)
  }

  /** Lets the notifier calls for a row's memory through, from now on. */
  #reach(row: MemslotRow, apply: boolean): void {
    if (apply) this.#context.rows.apply(null, row)
    if (this.#coverage.add(row.hva, row.hva + row.size) && !apply && !this.#context.everywhere) this.#tracer.setRanges(this.#coverage.bounds)
  }

  #changed(change: Change, memslots: Memslots | undefined): void {
    if (change.of === 'memslot' && change.table !== memslots) return
    if (change.of === 'memslot' && change.after) this.#reach(change.after, false)
    this.#changes.push(change)
  }

  /** After close() only what was drained before is left. */
  get closed(): boolean {
    return this.#closed
  }

  /** Events that found no room, until now or the close. Raise `ringSize` or `heldLimit`, or drain more often. */
  get lost(): number {
    return this.#closed ? this.#lost : this.#tracer.lost()
  }

  /** What happened since the last call, by time across CPUs. Nothing once closed. */
  drain(): TraceEvent[] {
    if (this.#closed) return []
    const until = now()
    this.#cursors = [...this.#cursors.filter((cursor) => cursor.time !== Infinity), ...this.#tracer.drain().map((records) => new Cursor(records))]
    const changes = this.#changes
    this.#changes = []
    const events: TraceEvent[] = []
    let next = 0
    merge(this.#cursors, until, (view, at, time) => {
      while (next < changes.length && changes[next]!.begin <= time) this.#tell(changes[next++]!, events)
      this.#decode(view, at, events)
    })
    while (next < changes.length) this.#tell(changes[next++]!, events)
    return events
  }

  #decode(view: DataView, at: number, events: TraceEvent[]): void {
    const source = this.#sources.get(idOf(view, at))
    if (!source) return
    const event = new Recorded(source.format, view, at, this.start) as unknown as TraceEvent
    if (!source.fill(event, view, dataOf(at))) return
    this.#causes.follow(event)
    events.push(event)
  }

  #tell(change: Change, events: TraceEvent[]): void {
    const { begin, end, of, table, ...what } = change as Change & { table?: object }
    const event = Object.assign(new Event(), {
      kind: of,
      time: begin,
      elapsed: (begin - this.start) / 1e6,
      ...this.#own,
      cpu: -1,
      duration: end - begin,
      raw: {},
      ...what
    }) as unknown as TraceEvent
    this.#causes.follow(event)
    if (change.of === 'memslot') this.#context.rows.apply(change.before, change.after)
    else if (!this.#context.everywhere && this.#context.rows.hits(change.hva, change.size).length === 0) return
    if (this.#context.wanted.has(of)) events.push(event)
  }

  /** Events as they come, until close(). */
  async *[Symbol.asyncIterator](): AsyncGenerator<TraceEvent> {
    while (!this.#closed) {
      const events = this.drain()
      if (events.length > 0) yield* events
      else await this.#arrival()
    }
  }

  // The reader thread writes a byte when it holds something new; own calls are looked for when one comes, or at the latest after a while.
  #arrival(): Promise<void> {
    const socket = (this.#socket ??= this.#subscribe())
    return new Promise((resolve) => {
      const timer = setTimeout(done, 200)
      function done(): void {
        clearTimeout(timer)
        socket.off('data', done).off('close', done)
        resolve()
      }
      socket.once('data', done).once('close', done)
    })
  }

  #subscribe(): Socket {
    const fd = this.#tracer.subscribe()
    if (fd < 0) throw new KvmError('unavailable', `waiting for events: ${errnoName(fd)}`, { errno: errnoName(fd) })
    const socket = new Socket({ fd, readable: true, writable: false })
    // What is left to say when the trace ends is nothing.
    socket.on('error', () => {})
    return socket
  }

  /** Ends the trace; what was not drained is gone. A second call does nothing. */
  close(): void {
    if (this.#closed) return
    this.#lost = this.#tracer.lost()
    this.#closed = true
    this.#unwatch()
    this.#socket?.destroy()
    this.#tracer.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}
