/** Finds which event caused which. It uses only order, thread and range, and only where these leave no doubt. */
import type { Gpa, Hva } from '../../abi/addresses.js'
import { levelSize } from '../../x86/spte.js'
import type {
  HitRange,
  MappingEvent,
  MemslotEvent,
  MisconfigEvent,
  NotifierUnmapEvent,
  SpteChangeEvent,
  SpteSetEvent,
  TraceEvent,
  ViolationEvent,
  ZapAllEvent
} from './events.js'
import { Recent } from './recent.js'
import { Recorded, type RecordedChange } from './recorded.js'

const remembered = 64
const mostThreads = 4096
type Call = MemslotEvent | MappingEvent
type Fault = ViolationEvent | MisconfigEvent
/** An event that drops the entries of many pages at once. Under shadow paging KVM reports no event for each entry. */
type Sweep = NotifierUnmapEvent | ZapAllEvent | MemslotEvent

const within = (address: number, start: number, size: number) => address >= start && address < start + size
const meet = (start: number, size: number, otherStart: number, otherSize: number) => start < otherStart + otherSize && otherStart < start + size
function detached<T extends TraceEvent>(event: T): T {
  if (event instanceof Recorded) event.detach()
  return event
}
/** Whether a notifier call hits a page. If the memslots are not known, no hit is certain. */
const hits = (gpas: readonly HitRange[] | null, gpa: Gpa, size: number) => gpas?.some((hit) => meet(gpa, size, hit.gpa, hit.size)) ?? false

/** Follows the events of a trace in order of time. */
export class Causes {
  /** The library's own call in progress. Calls of one environment do not overlap, since one thread makes them. */
  #call: Call | undefined
  /** For each thread, the fault that it is handling. */
  readonly #faults = new Map<number, Fault>()
  /** For each thread, the event for which it is dropping entries. */
  readonly #drops = new Map<number, NotifierUnmapEvent | ZapAllEvent>()
  #sweeps: Sweep[] = []
  /** The time of the newest event that was forgotten. */
  #forgotten = 0
  /** By gfn: the event that dropped the entry, if KVM reports drops (`#dropped`); otherwise the time at which the entry was set (`#set`). */
  readonly #dropped = new Recent<TraceEvent>()
  readonly #set = new Recent<number>()
  #tellsDrops = false

  /** Gives the event its cause, and remembers the event as a possible cause of later ones. */
  follow(event: TraceEvent): void {
    const cause = this.#judge(event)
    if (cause) event.cause = cause
    // Threads that ended in the middle of something do not stay here for ever.
    if (this.#faults.size > mostThreads) this.#faults.clear()
    // A thread's notifier call, or its zap of all entries, is over when the thread does something else.
    if (event.kind === 'notifier-unmap' || event.kind === 'zap-all') this.#drops.set(event.thread, detached(event))
    else if (event.kind !== 'spte-change' && event.kind !== 'zap-page') this.#drops.delete(event.thread)
  }

  #judge(event: TraceEvent): TraceEvent | undefined {
    switch (event.kind) {
      case 'memslot':
      case 'mapping':
        this.#call = event
        if (event.kind === 'memslot' && event.before) this.#sweep(event)
        return undefined
      case 'violation':
        this.#faults.set(event.thread, event)
        return event.present ? undefined : this.#takenAt(event.gpa)
      case 'misconfig':
        this.#faults.set(event.thread, event)
        return undefined
      case 'notifier-unmap':
        this.#sweep(event)
        return this.#callOf(event, event.hva, event.size) ?? this.#faultOf(event, (gpa) => hits(event.gpas, gpa, 1))
      case 'spte-change':
        return this.#changed(event)
      case 'spte-set':
        return this.#isSet(event)
      case 'zap-all':
        this.#sweep(event)
        return this.#callOf(event)
      case 'zap-page':
        return this.#callOf(event) ?? this.#dropOf(event, event.gfn * 4096, levelSize(event.level + 1))
      case 'mmio':
        return this.#faultOf(event, (gpa) => Math.floor(gpa / 4096) === Math.floor(event.gpa / 4096))
      case 'exit':
      case 'entry':
        this.#faults.delete(event.thread)
        return undefined
      default:
        return undefined
    }
  }

  #changed(event: SpteChangeEvent): TraceEvent | undefined {
    if (!this.#tellsDrops) this.#sweeps = []
    this.#tellsDrops = true
    const { wasPresent, isPresent } = event as unknown as RecordedChange
    const start = event.gfn * 4096
    const size = levelSize(event.level)
    const fault = this.#faultOf(event, (gpa) => within(gpa, start, size))
    if (isPresent) return fault
    const cause = this.#callOf(event) ?? this.#dropOf(event, start, size) ?? fault
    // A change that a violation led to is no cause of the next violation.
    const ownDoing = cause?.kind === 'violation' || cause?.cause?.kind === 'violation'
    if (wasPresent && event.addressSpace === 0 && (event.level === 1 || event.before.huge))
      if (ownDoing) this.#dropped.take(event.gfn)
      else this.#dropped.set(event.gfn, cause ?? detached(event))
    return cause
  }

  // Shadow paging reports no violations: there, an entry comes back because something had dropped it.
  #isSet(event: SpteSetEvent): TraceEvent | undefined {
    const start = event.gfn * 4096
    const fault = this.#faultOf(event, (gpa) => within(gpa, start, levelSize(event.level)))
    // For MMIO the emulation is still to come.
    if (fault?.kind === 'violation' && !event.mmio) this.#faults.delete(event.thread)
    const cause = fault ?? this.#takenAt(start)
    if (!this.#tellsDrops && !event.mmio) this.#set.set(event.gfn, event.time)
    return cause
  }

  /** Finds the call of this environment during which the event happened: by time, by thread and, if the event has any, by HVAs. */
  #callOf(event: TraceEvent, hva?: Hva, size = 0): Call | undefined {
    const call = this.#call
    if (!call || event.thread !== call.thread || event.time < call.time || event.time > call.time + call.duration) return undefined
    if (call.kind === 'mapping') return hva !== undefined && meet(call.hva, call.size, hva, size) ? call : undefined
    return hva === undefined ? call : undefined
  }

  #faultOf(event: TraceEvent, covers: (gpa: Gpa) => boolean): Fault | undefined {
    const fault = this.#faults.get(event.thread)
    return fault && fault.gpa !== null && covers(fault.gpa) ? fault : undefined
  }

  #dropOf(event: TraceEvent, gpa: Gpa, size: number): NotifierUnmapEvent | ZapAllEvent | undefined {
    const drop = this.#drops.get(event.thread)
    return drop && (drop.kind === 'zap-all' || hits(drop.gpas, gpa, size)) ? drop : undefined
  }

  #sweep(event: Sweep): void {
    if (this.#tellsDrops) return
    this.#sweeps.push(event)
    if (this.#sweeps.length <= 2 * remembered) return
    this.#forgotten = this.#sweeps.at(-remembered - 1)?.time ?? 0
    this.#sweeps = this.#sweeps.slice(-remembered)
  }

  /** Finds the event that dropped the entry of a GPA, if there was an entry. */
  #takenAt(gpa: Gpa): TraceEvent | undefined {
    const gfn = Math.floor(gpa / 4096)
    if (this.#sweeps.length === 0 && !this.#tellsDrops) return undefined
    if (this.#tellsDrops) return this.#dropped.take(gfn) ?? this.#dropped.take(gfn - (gfn % 512)) ?? this.#dropped.take(gfn - (gfn % 512 ** 2))
    const set = this.#set.get(gfn)
    // The first event since then dropped it, unless that event is forgotten.
    if (set === undefined || set < this.#forgotten) return undefined
    return this.#sweeps.find((event) => event.time > set && sweeps(event, gpa))
  }
}

function sweeps(event: Sweep, gpa: Gpa): boolean {
  if (event.kind === 'zap-all') return true
  if (event.kind === 'memslot') return event.before !== null && within(gpa, event.before.gpa, event.before.size)
  return hits(event.gpas, gpa, 1)
}
