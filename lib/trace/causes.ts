/** Which event made which happen: from order, thread and range alone, and only where these leave no doubt. */
import type { HitRange, MappingEvent, MemslotEvent, NotifierUnmapEvent, SpteChangeEvent, TraceEvent, ViolationEvent, ZapAllEvent } from './events.js'

const remembered = 64
type Dropping = NotifierUnmapEvent | SpteChangeEvent | ZapAllEvent | MemslotEvent

/** Follows the events of a trace in order of time. */
export class Causes {
  /** The library's own call that is going on, with the moment it ended. */
  #call: { event: MemslotEvent | MappingEvent; end: number } | undefined
  readonly #violations = new Map<number, ViolationEvent>()
  readonly #notifiers = new Map<number, NotifierUnmapEvent>()
  #dropped: Dropping[] = []

  /** Gives the event its cause, and remembers what it may cause itself. */
  follow(event: TraceEvent): void {
    switch (event.kind) {
      case 'memslot':
      case 'mapping':
        this.#call = { event, end: event.time + event.duration }
        if (event.kind === 'memslot' && event.before) this.#remember(event)
        return
      case 'notifier-unmap':
        this.#violations.delete(event.thread)
        this.#explain(event, this.#callAt(event, 'mapping') ?? this.#violations.get(event.thread))
        this.#notifiers.set(event.thread, event)
        this.#remember(event)
        return
      case 'violation':
        this.#notifiers.delete(event.thread)
        this.#violations.set(event.thread, event)
        this.#explain(event, this.#droppedAt(event.gpa))
        return
      case 'spte-set':
        // Shadow paging tells of no violation: there an entry comes back because of what took it.
        this.#explain(event, this.#violations.get(event.thread) ?? this.#droppedAt(event.gfn * 4096))
        return
      case 'spte-change':
        this.#explain(
          event,
          event.after.present ? this.#violations.get(event.thread) : (this.#notifiers.get(event.thread) ?? this.#callAt(event, 'memslot'))
        )
        if (event.before.present && !event.after.present) this.#remember(event)
        return
      case 'zap-all':
      case 'zap-page':
        this.#explain(event, this.#callAt(event, 'memslot'))
        if (event.kind === 'zap-all') this.#remember(event)
        return
      case 'exit':
      case 'entry':
        this.#violations.delete(event.thread)
        this.#notifiers.delete(event.thread)
    }
  }

  #explain(event: TraceEvent, cause: TraceEvent | undefined): void {
    if (cause) event.cause = cause
  }

  // Calls of this environment do not overlap: they are made by one thread.
  #callAt(event: TraceEvent, kind: 'memslot' | 'mapping'): TraceEvent | undefined {
    const call = this.#call
    return call && call.event.kind === kind && event.time >= call.event.time && event.time <= call.end ? call.event : undefined
  }

  #remember(event: Dropping): void {
    this.#dropped.push(event)
    if (this.#dropped.length > 2 * remembered) this.#dropped = this.#dropped.slice(-remembered)
  }

  /** The last that took the entry of a GPA away. */
  #droppedAt(gpa: number): TraceEvent | undefined {
    return this.#dropped.findLast((event) => covers(event, gpa))
  }
}

const within = (gpa: number, start: number, size: number) => gpa >= start && gpa < start + size

function covers(event: Dropping, gpa: number): boolean {
  if (event.kind === 'zap-all') return true
  if (event.kind === 'memslot') return event.before !== null && within(gpa, event.before.gpa, event.before.size)
  if (event.kind === 'spte-change') return within(gpa, event.gfn * 4096, 4096 * 512 ** (event.level - 1))
  return event.gpas.some((hit: HitRange) => within(gpa, hit.gpa, hit.size))
}
