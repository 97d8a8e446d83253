/** The first table as it was when an event happened: the rows follow the events, not the present. */
import type { Hva } from '../../abi/addresses.js'
import type { MemslotRow } from '../../memory/changes.js'
import type { HitRange } from './events.js'

export class Rows {
  readonly #byId = new Map<number, MemslotRow>()
  #sorted: MemslotRow[] | undefined
  #largest = 0

  apply(before: MemslotRow | null, after: MemslotRow | null): void {
    if (before && before.id !== after?.id) this.#byId.delete(before.id)
    if (after) this.#byId.set(after.id, after)
    this.#sorted = undefined
  }

  /** Replaces all rows. They may belong to several VMs, so their ids may repeat. */
  replace(rows: Iterable<MemslotRow>): void {
    this.#byId.clear()
    let key = 0
    for (const row of rows) this.#byId.set(key++, row)
    this.#sorted = undefined
  }

  /** Returns the GPAs of all slots that belong to [hva, hva + size). */
  hits(hva: Hva, size: number): HitRange[] {
    const rows = (this.#sorted ??= this.#sort())
    const end = hva + size
    const hits: HitRange[] = []
    for (let index = firstFrom(rows, end) - 1; index >= 0; index--) {
      const row = rows[index]!
      if (row.hva + this.#largest <= hva) break
      const from = Math.max(hva, row.hva)
      const to = Math.min(end, row.hva + row.size)
      if (from < to) hits.push({ slot: row.id, gpa: row.gpa + from - row.hva, size: to - from })
    }
    return hits.reverse()
  }

  #sort(): MemslotRow[] {
    this.#largest = [...this.#byId.values()].reduce((most, { size }) => Math.max(most, size), 0)
    return [...this.#byId.values()].sort((one, other) => one.hva - other.hva)
  }
}

/** Returns the index of the first row whose HVA is at or above `hva`. */
function firstFrom(rows: MemslotRow[], hva: Hva): number {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (rows[middle]!.hva < hva) low = middle + 1
    else high = middle
  }
  return low
}

/** Disjoint ranges of HVAs, which only grow. The reader thread lets through what is in them; {@link Rows} then decides exactly. */
export class Coverage {
  #bounds: [start: number, end: number][] = []

  /** Whether the coverage grew. */
  add(start: number, end: number): boolean {
    if (this.#bounds.some((range) => range[0] <= start && end <= range[1])) return false
    const apart = this.#bounds.filter((range) => range[1] < start || range[0] > end)
    const touching = this.#bounds.filter((range) => range[1] >= start && range[0] <= end)
    apart.push([Math.min(start, ...touching.map((range) => range[0])), Math.max(end, ...touching.map((range) => range[1]))])
    this.#bounds = apart
    return true
  }

  /** The ranges as flat pairs, or null (everywhere) if they are too many to compare with each event. */
  get bounds(): number[] | null {
    return this.#bounds.length > 256 ? null : this.#bounds.flat()
  }
}
