/** KVM's counters between the drains of a trace: the cross-check of what was lost. */

/** Counters that can be read, such as `vm.stats`. */
export interface Counters {
  /** Whose they are. */
  describe(): { id: string }
  /** All values by name. */
  read(): Record<string, number | number[]>
}
type Values = Record<string, number | number[]>

function differenceOf(before: number | number[] | undefined, after: number | number[]): number | number[] {
  if (typeof after === 'number') return after - (typeof before === 'number' ? before : 0)
  return after.map((value, index) => value - (Array.isArray(before) ? (before[index] ?? 0) : 0))
}
const isChange = (difference: number | number[]) => (Array.isArray(difference) ? difference.some((value) => value !== 0) : difference !== 0)

/**
 * By how much counters differ between two readings: those that changed, of a histogram each bucket.
 * @example
 * const before = vm.stats.read()
 * vm.memslots.create({ gpa: 0xa000, mapping: page })
 * statisticsGrowth(before, vm.stats.read())   // {}
 */
export function statisticsGrowth(before: Values, after: Values): Values {
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, value]): [string, number | number[]] => [name, differenceOf(before[name], value)])
      .filter(([, difference]) => isChange(difference))
  )
}

/** Reads counters again and again, and tells by how much they grew since. */
export class Growth {
  readonly #sources: () => Iterable<Counters>
  readonly #last = new Map<string, { values: Values; time: number }>()

  constructor(sources: () => Iterable<Counters>, time: number) {
    this.#sources = sources
    for (const source of sources()) this.#last.set(source.describe().id, { values: source.read(), time })
  }

  /** Whose changed since the last call; a vCPU made since then began at 0. */
  take(time: number): { of: string; since: number; changes: Values }[] {
    return [...this.#sources()].flatMap((source) => {
      const values = source.read()
      const { id } = source.describe()
      const last = this.#last.get(id)
      this.#last.set(id, { values, time })
      const changes = statisticsGrowth(last?.values ?? {}, values)
      return Object.keys(changes).length === 0 ? [] : [{ of: id, since: last?.time ?? time, changes }]
    })
  }
}
