/** Records what the library itself did while a trace ran: its calls, and how KVM's counters grew. */
import { type MemslotRow, type OwnChange, watchChanges } from '../../memory/changes.js'
import { type Memslots, tableOf } from '../../memory/memslots.js'
import type { SlotTable } from '../../memory/slot-table.js'
import { PrintableEvent } from './recorded.js'

// With this, a trace that was dropped without close() can be collected, together with its thread and rings.
const unwatchers = new FinalizationRegistry((unwatch: () => void) => unwatch())
function watchWeakly(calls: OwnCalls): () => void {
  const reference = new WeakRef(calls)
  const unwatch = watchChanges((change) => reference.deref()?.take(change))
  unwatchers.register(calls, unwatch, calls)
  return unwatch
}

/** The calls since the last drain, up to a limit. */
export class OwnCalls {
  /** How many calls were lost because of the limit. */
  lost = 0
  readonly #table: SlotTable | undefined
  readonly #limit: number
  readonly #arrived: (change: OwnChange) => void
  readonly #unwatch: () => void
  #changes: OwnChange[] = []

  /** @param arrived called after each change */
  constructor(table: Memslots | undefined, limit: number, arrived: (change: OwnChange) => void) {
    this.#table = table && tableOf(table)
    this.#limit = limit
    this.#arrived = arrived
    this.#unwatch = watchWeakly(this)
  }

  /** @internal */
  take(change: OwnChange): void {
    if (change.of === 'memslot' && change.table !== this.#table) return
    if (this.#changes.length < this.#limit) this.#changes.push(change)
    else this.lost++
    this.#arrived(change)
  }

  drain(): OwnChange[] {
    const changes = this.#changes
    this.#changes = []
    return changes
  }

  /** Returns the memslots as they are now. */
  *rows(): Generator<MemslotRow> {
    for (const { id, gpa, size, hva } of this.#table ?? []) yield { id, gpa, size, hva }
  }

  close(): void {
    this.#unwatch()
    unwatchers.unregister(this)
    this.#changes = []
  }
}

/** Makes an event of the library itself, which has no CPU and no record. */
export const ownEvent = (start: number, time: number, fields: object): PrintableEvent =>
  Object.assign(new PrintableEvent(), { time, elapsed: (time - start) / 1e6, cpu: -1, raw: {}, ...fields })
