/** Which event made which happen: from order, thread and range alone, and only where these leave no doubt. */
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
/** What takes entries of many pages at once, without an event for each where KVM shadows page tables. */
type Sweep = NotifierUnmapEvent | ZapAllEvent | MemslotEvent

const within = (address: number, start: number, size: number) => address >= start && address < start + size
const meet = (start: number, size: number, otherStart: number, otherSize: number) => start < otherStart + otherSize && otherStart < start + size
function detached<T extends TraceEvent>(event: T): T {
  if (event instanceof Recorded) event.detach()
  return event
}
/** Of a notifier call; where no memslots are known none is sure. */
const hits = (gpas: readonly HitRange[] | null, gpa: Gpa, size: number) => gpas?.some((hit) => meet(gpa, size, hit.gpa, hit.size)) ?? false

/** Follows the events of a trace in order of time. */
export class Causes {
  /** The library's own call that is going on. Calls of one environment do not overlap: one thread makes them. */
  #call: Call | undefined
  /** The fault that each thread is in. */
  readonly #faults = new Map<number, Fault>()
  /** What each thread is dropping entries for. */
  readonly #drops = new Map<number, NotifierUnmapEvent | ZapAllEvent>()
  #sweeps: Sweep[] = []
  /** When the last happened that is not among them any more. */
  #forgotten = 0
  /** By gfn: what dropped its entry, where KVM told of it; and when it was set, where it tells of no drop. */
  readonly #dropped = new Recent<TraceEvent>()
  readonly #set = new Recent<number>()
  #tellsDrops = false

  /** Gives the event its cause, and remembers what it may cause itself. */
  follow(event: TraceEvent): void {
    const cause = this.#judge(event)
    if (cause) event.cause = cause
    // Threads that ended in the middle of something are not waited for.
    if (this.#faults.size > mostThreads) this.#faults.clear()
    // A thread's notifier call, or its zap of all, is over when the thread does something else.
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
    // What a violation itself led to is no reason for the next one.
    const ownDoing = cause?.kind === 'violation' || cause?.cause?.kind === 'violation'
    if (wasPresent && event.addressSpace === 0 && (event.level === 1 || event.before.huge))
      if (ownDoing) this.#dropped.take(event.gfn)
      else this.#dropped.set(event.gfn, cause ?? detached(event))
    return cause
  }

  // Shadow paging tells of no violation: there an entry comes back because of what took it.
  #isSet(event: SpteSetEvent): TraceEvent | undefined {
    const start = event.gfn * 4096
    const fault = this.#faultOf(event, (gpa) => within(gpa, start, levelSize(event.level)))
    // For MMIO the emulation is still to come.
    if (fault?.kind === 'violation' && !event.mmio) this.#faults.delete(event.thread)
    const cause = fault ?? this.#takenAt(start)
    if (!this.#tellsDrops && !event.mmio) this.#set.set(event.gfn, event.time)
    return cause
  }

  /** The call of this environment that the event fell into: by time, thread and, where it has any, HVAs. */
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

  /** What took away the entry of a GPA, if one was there. */
  #takenAt(gpa: Gpa): TraceEvent | undefined {
    const gfn = Math.floor(gpa / 4096)
    if (this.#sweeps.length === 0 && !this.#tellsDrops) return undefined
    if (this.#tellsDrops) return this.#dropped.take(gfn) ?? this.#dropped.take(gfn - (gfn % 512)) ?? this.#dropped.take(gfn - (gfn % 512 ** 2))
    const set = this.#set.get(gfn)
    // The first since then took it, unless that one is forgotten.
    if (set === undefined || set < this.#forgotten) return undefined
    return this.#sweeps.find((event) => event.time > set && sweeps(event, gpa))
  }
}

function sweeps(event: Sweep, gpa: Gpa): boolean {
  if (event.kind === 'zap-all') return true
  if (event.kind === 'memslot') return event.before !== null && within(gpa, event.before.gpa, event.before.size)
  return hits(event.gpas, gpa, 1)
}
