/** Watches KVM's translation: it turns tracepoints and the library's own calls into typed events in one order. */

import { readlinkSync } from 'node:fs'
import { inspect } from 'node:util'
import { argumentError, checkAddress, checkBoolean, checkInteger, checkList, checkOneOf, checkOptions, MiB, pageSize } from '../../abi/arguments.js'
import { Doorbell } from '../../abi/doorbell.js'
import { KvmError } from '../../abi/errors.js'
import { making } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { type NativeTracer, native } from '../../abi/native.js'
import { shown } from '../../abi/text.js'
import type { MemslotRow, OwnChange } from '../../memory/changes.js'
import type { Memslots } from '../../memory/memslots.js'
import type { SpteFormat } from '../../x86/spte.js'
import { Causes } from './causes.js'
import type { TraceEvent, TraceKind } from './events.js'
import { parseFormat } from './format.js'
import { type Counters, Growth } from './growth.js'
import { OwnCalls, ownEvent } from './own-calls.js'
import { type Origin, Recorded } from './recorded.js'
import { Cursor, dataOf, idOf, merge } from './records.js'
import { refusal } from './refusal.js'
import { Coverage, Rows } from './rows.js'
import { Tracefs } from './tracefs.js'
import { allKinds, type DecodeContext, defaultKinds, type Fill, ownKinds, rawTracepoint, type Tracepoint, tracepoints } from './tracepoints.js'

/** What to trace, and how much memory that may take, for {@link trace} and {@link Trace.of}. */
export interface TraceOptions {
  /** The kinds of event. The default is the events of the three tables, without each exit, entry and emulated instruction. */
  kinds?: readonly TraceKind[]
  /** Further tracepoints by name, such as `kvm/kvm_userspace_exit`. Their records come undecoded, as kind `raw`. */
  tracepoints?: readonly string[]
  /** Whether to report notifier calls for any memory of the process. By default only memory behind memslots counts. */
  everywhere?: boolean
  /** The size of each CPU's ring in bytes: a power of two, at least 4 KiB. The default is 4 MiB. */
  ringSize?: number
  /** How many bytes are held between two drains. Later events are lost, and counted. The default is 256 MiB. */
  heldLimit?: number
}

/** The processes to trace, and what the library knows of their VMs. */
export interface TraceSubject {
  /** The VM's own table, if the VM belongs to this process. */
  memslots?: Memslots
  spteFormat: SpteFormat
  /** The process ids. An empty list means every process of the host. */
  processes: readonly number[]
  /** Whether to trace also the processes that these fork from now on. */
  children?: boolean
  /** Returns the counters that are open at the moment. Their growth is reported as kind `statistics`. */
  counters?: () => Iterable<Counters>
}

const subjectNames = ['memslots', 'spteFormat', 'processes', 'children', 'counters'] as const
const optionNames = ['kinds', 'tracepoints', 'everywhere', 'ringSize', 'heldLimit'] as const
const now = () => Number(process.hrtime.bigint())
const bytesOfCall = 256

interface Source {
  point: Tracepoint
  origin: Origin
  record: typeof Recorded
  fill: Fill
}

interface Settings {
  wanted: ReadonlySet<TraceKind>
  named: readonly string[]
  everywhere: boolean
  ringSize: number
  heldLimit: number
}

function checkedSettings(options: TraceOptions): Settings {
  checkOptions('options', options, optionNames)
  const { kinds = defaultKinds, tracepoints: named = [], everywhere = false, ringSize = 4 * MiB, heldLimit = 256 * MiB } = options
  const wanted = new Set(checkList('kinds', kinds).map((kind) => checkOneOf('kinds', kind, allKinds)))
  const names = checkList('tracepoints', named)
  for (const name of names)
    if (typeof name !== 'string' || !/^\w+\/\w+$/.test(name)) throw argumentError('tracepoints', name, "names such as 'kvm/kvm_userspace_exit'")
  checkBoolean('everywhere', everywhere)
  checkInteger('ringSize', ringSize, pageSize, 2 ** 30)
  if (!Number.isInteger(Math.log2(ringSize))) throw argumentError('ringSize', ringSize, 'a power of two')
  checkInteger('heldLimit', heldLimit, 0, 2 ** 40)
  return { wanted, named: names, everywhere, ringSize, heldLimit }
}

function checkRow(row: MemslotRow): MemslotRow {
  if (typeof row !== 'object' || row === null) throw argumentError('rows', row, 'memslots')
  checkInteger('id', row.id)
  checkAddress('gpa', row.gpa)
  checkAddress('hva', row.hva)
  checkInteger('size', row.size)
  return row
}

function checkedSubject(subject: TraceSubject): TraceSubject {
  const { processes, children = false, counters = () => [] } = checkOptions('subject', subject, subjectNames)
  for (const pid of checkList('processes', processes)) checkInteger('processes', pid, 1, 2 ** 31 - 1)
  checkBoolean('children', children)
  if (typeof counters !== 'function') throw argumentError('counters', counters, 'a function')
  checkOneOf('spteFormat', subject.spteFormat, ['ept', 'x86'])
  return subject
}

/**
 * A running trace. It holds the events until they are drained. close() or the end of a `using` block ends it.
 * @example
 * using recording = trace(vm)
 * vm.memslots.create({ gpa: 0xa000, mapping: page }).move(0xe000)
 * for (const event of recording.drain()) console.log(event.kind, event.elapsed)
 * recording.lost   // 0
 */
export class Trace implements Disposable, AsyncIterable<TraceEvent> {
  /** The requested kinds for which this kernel has no event. */
  readonly unavailable: readonly TraceKind[]
  /** When the trace began, in nanoseconds of CLOCK_MONOTONIC. */
  readonly start = now()
  readonly #tracer: NativeTracer
  readonly #sources = new Map<number, Source>()
  readonly #context: DecodeContext
  readonly #everywhere: boolean
  readonly #causes = new Causes()
  readonly #coverage = new Coverage()
  readonly #calls: OwnCalls
  readonly #growth: Growth | undefined
  readonly #self = { process: process.pid, thread: Number(readlinkSync('/proc/thread-self').split('/').pop()) }
  #cursors: Cursor[] = []
  // The events that an iterator decoded ahead, from #next on: a loop that is left has taken only the events that it was given.
  #ahead: TraceEvent[] = []
  #next = 0
  #iterated = false
  #lost = 0
  #missed = 0
  #doorbell: Doorbell | undefined
  #wake: (() => void) | undefined
  #closed = false

  /**
   * Begins a trace.
   * @throws KvmError `permission` without CAP_PERFMON (or root), `unavailable` without tracefs or for a tracepoint that this kernel lacks, `argument`
   */
  static of(subject: TraceSubject, options: TraceOptions = {}): Trace {
    return new Trace(ours, checkedSubject(subject), checkedSettings(options))
  }

  private constructor(key: symbol, subject: TraceSubject, settings: Settings) {
    checkOurs(key, 'a Trace', 'trace(), or Trace.of(),')
    const { wanted, named, everywhere, heldLimit } = settings
    this.#everywhere = everywhere
    const rows = subject.memslots ? new Rows() : null
    this.#context = { wanted, rows, everywhere, faulting: new Map(), misconfigs: new Map() }
    this.#findSources(named, subject.spteFormat)
    const found = new Set([...this.#sources.values()].flatMap(({ point }) => point.kinds))
    this.unavailable = [...wanted].filter((kind) => !found.has(kind) && !ownKinds.includes(kind) && kind !== 'raw')
    this.#tracer = this.#open(subject, settings)
    this.#calls = new OwnCalls(subject.memslots, Math.floor(heldLimit / bytesOfCall), (change) => this.#called(change))
    try {
      this.#seed()
      if (subject.counters && wanted.has('statistics')) this.#growth = new Growth(subject.counters, this.start)
    } catch (error) {
      this.close()
      throw error
    }
  }

  #findSources(named: readonly string[], spteFormat: SpteFormat): void {
    using tracefs = new Tracefs()
    const points = tracepoints.filter(({ kinds }) => kinds.some((kind) => this.#context.wanted.has(kind)))
    for (const point of points) this.#addSource(tracefs, point, spteFormat)
    for (const name of named) {
      const used = points.find(({ event }) => event === name)
      if (used)
        throw argumentError(
          'tracepoints',
          name,
          `another one: this one already gives the kind '${used.kinds.join("', '")}', whose \`raw\` has its fields`
        )
      if (!this.#addSource(tracefs, rawTracepoint(name), spteFormat))
        throw new KvmError('unavailable', `this kernel lacks the tracepoint ${name}; to list those it has: ls /sys/kernel/tracing/events/kvm`, {
          tracepoint: name
        })
    }
  }

  #addSource(tracefs: Tracefs, point: Tracepoint, spteFormat: SpteFormat): boolean {
    const text = tracefs.read(point.event, 'format')
    if (text === null) return false
    const format = parseFormat(point.event, text)
    const origin = { format, spteFormat, start: this.start }
    this.#sources.set(format.id, { point, origin, record: point.record ?? Recorded, fill: point.decoder(format, this.#context) })
    return true
  }

  #open({ processes, children = false }: TraceSubject, { wanted, ringSize, heldLimit }: Settings): NativeTracer {
    const events = [...this.#sources.values()].map(({ point, origin: { format } }) => ({
      id: format.id,
      startOffset: format.fields.get(point.range?.[0] ?? '')?.offset ?? 0,
      endOffset: format.fields.get(point.range?.[1] ?? '')?.offset ?? 0,
      filter: point.filter?.(wanted) ?? ''
    }))
    const tracer = making(() => native.trace({ events, processes: [...processes], children, ringSize, heldLimit }))
    if (typeof tracer === 'number') throw refusal(tracer, ringSize)
    return tracer
  }

  #seed(): void {
    const { rows } = this.#context
    if (!rows) return
    rows.replace([])
    for (const row of this.#calls.rows()) {
      rows.apply(null, row)
      this.#coverage.add(row.hva, row.hva + row.size)
    }
    this.#reach()
  }

  /** From now on lets those notifier calls through that may hit a memslot. */
  #reach(): void {
    if (!this.#everywhere) this.#tracer.setRanges(this.#coverage.bounds)
  }

  #called(change: OwnChange): void {
    if (change.of === 'memslot' && change.after && this.#coverage.add(change.after.hva, change.after.hva + change.after.size)) this.#reach()
    this.#wake?.()
  }

  /**
   * Sets the memslots of another process's VMs, as {@link hostVms} reads them. From the next drain on, notifier calls are matched with these, until
   * the next call. Before the first call all notifier calls are shown, with `gpas` null.
   */
  tellMemslots(rows: Iterable<MemslotRow>): void {
    const list = checkList('rows', rows).map(checkRow)
    ;(this.#context.rows ??= new Rows()).replace(list)
    const grew = list.map(({ hva, size }) => this.#coverage.add(hva, hva + size))
    if (grew.includes(true)) this.#reach()
  }

  /** Why requested statistics could not be read from the beginning on, for example because the vCPU was running. */
  get missing(): readonly string[] {
    return this.#growth?.missing ?? []
  }

  /** Whether close() was called. Only events that were already drained are left then. */
  get closed(): boolean {
    return this.#closed
  }

  /** How many events found no room, until now or until close(). Raise `ringSize` or `heldLimit`, or drain more often. */
  get lost(): number {
    return this.#closed ? this.#lost : this.#tracer.lost() + this.#calls.lost
  }

  /** Returns the events since the last call, by time across CPUs, and those that a loop left behind. After close() there are none. */
  drain(): TraceEvent[] {
    const events = this.#decoded()
    const ahead = this.#ahead.slice(this.#next)
    this.#ahead = []
    return ahead.length === 0 ? events : ahead.concat(events)
  }

  #decoded(): TraceEvent[] {
    if (this.#closed) return []
    const until = now()
    // This comes first, since reading the counters may fail. In that case nothing was taken.
    const grown = this.#grown(until)
    this.#cursors = [...this.#cursors.filter((cursor) => cursor.time !== Infinity), ...this.#tracer.drain().map((records) => new Cursor(records))]
    const changes = this.#calls.drain()
    const missed = this.#calls.lost
    const events: TraceEvent[] = []
    let next = 0
    let begin = changes[0]?.begin ?? Infinity
    merge(this.#cursors, until, (view, at, time) => {
      while (begin <= time) {
        this.#tell(changes[next++]!, events)
        begin = changes[next]?.begin ?? Infinity
      }
      this.#decode(view, at, time, events)
    })
    while (next < changes.length) this.#tell(changes[next++]!, events)
    // After a gap in the reported changes, the rows are those of now.
    if (missed !== this.#missed) this.#seed()
    this.#missed = missed
    return grown.length === 0 ? events : events.concat(grown)
  }

  #decode(view: DataView, at: number, time: number, events: TraceEvent[]): void {
    const source = this.#sources.get(idOf(view, at))
    if (!source) return
    const event = new source.record(source.origin, view, at, time) as unknown as TraceEvent
    if (!source.fill(event, view, dataOf(at))) return
    this.#causes.follow(event)
    events.push(event)
  }

  #tell(change: OwnChange, events: TraceEvent[]): void {
    const { begin, end, of, table, ...what } = change as OwnChange & { table?: object }
    const event = ownEvent(this.start, begin, { kind: of, ...this.#self, duration: end - begin, ...what }) as unknown as TraceEvent
    this.#causes.follow(event)
    const { rows } = this.#context
    if (change.of === 'memslot') rows?.apply(change.before, change.after)
    else if (!this.#everywhere && rows?.hits(change.hva, change.size).length === 0) return
    if (this.#context.wanted.has(of)) events.push(event)
  }

  #grown(time: number): TraceEvent[] {
    return (this.#growth?.take(time) ?? []).map(
      (growth) => ownEvent(this.start, time, { kind: 'statistics', ...this.#self, ...growth }) as unknown as TraceEvent
    )
  }

  #nextEvent(): TraceEvent | undefined {
    if (this.#next >= this.#ahead.length) {
      this.#ahead = this.#decoded()
      this.#next = 0
    }
    return this.#ahead[this.#next++]
  }

  /**
   * Yields events as they come, until close(). It takes them as drain() does, so only one loop can run at a time: a second one throws `in-use` at its
   * first step. Leaving the loop does not close the trace; the next loop, or drain(), goes on where it was.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<TraceEvent> {
    if (this.#closed) return
    if (this.#iterated)
      throw new KvmError('in-use', 'a loop already reads this trace, which gives each event once: leave that loop first, or open another trace')
    this.#iterated = true
    try {
      while (!this.#closed) {
        const event = this.#nextEvent()
        if (event) yield event
        else await this.#arrival()
      }
    } finally {
      this.#iterated = false
    }
  }

  // The reader thread rings when it holds something new. Calls of this environment wake the loop by themselves.
  #arrival(): Promise<void> {
    const doorbell = (this.#doorbell ??= this.#subscribe())
    // Only a loop that waits keeps the process alive.
    doorbell.ref()
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined
        doorbell.unref()
        resolve()
      }
    })
  }

  // The doorbell lives as long as the rings. It must not hold the trace, so that a trace that was dropped without close() can be collected.
  #subscribe(): Doorbell {
    const reference = new WeakRef(this)
    return new Doorbell(
      making(() => this.#tracer.subscribe()),
      () => {
        const trace = reference.deref()
        if (trace) trace.#wake?.()
      }
    )
  }

  /** Ends the trace. Events that were not drained are lost. A second call does nothing. */
  close(): void {
    if (this.#closed) return
    this.#lost = this.lost
    this.#closed = true
    this.#calls.close()
    this.#doorbell?.close()
    this.#wake?.()
    this.#ahead = []
    this.#cursors = []
    this.#tracer.close()
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    const { closed, lost } = this
    return shown('Trace', { kinds: [...this.#context.wanted].join(' '), everywhere: this.#everywhere, lost, closed })
  }
}
