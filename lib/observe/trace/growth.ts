/** Reads KVM's counters between the drains of a trace, to check how much was lost. */
import { argumentError } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'

/** Counters that can be read, such as `vm.stats`. */
export interface Counters {
  /** Names the owner of the counters. */
  describe(): { id: string }
  /** Returns all values by name. */
  read(): Record<string, number | number[]>
}
type Values = Record<string, number | number[]>

function differenceOf(before: number | number[] | undefined, after: number | number[]): number | number[] {
  if (typeof after === 'number') return after - (typeof before === 'number' ? before : 0)
  return after.map((value, index) => value - (Array.isArray(before) ? (before[index] ?? 0) : 0))
}
const isChange = (difference: number | number[]) => (Array.isArray(difference) ? difference.some((value) => value !== 0) : difference !== 0)

function checkValues(argument: string, values: Values): void {
  const isValue = (value: unknown) => typeof value === 'number' || (Array.isArray(value) && value.every((part) => typeof part === 'number'))
  if (typeof values !== 'object' || values === null || !Object.values(values).every(isValue))
    throw argumentError(argument, values, 'what read() of Statistics returned')
}

/**
 * Returns the differences between two readings of counters: only of those that changed, and of each bucket of a histogram.
 * @example
 * const before = vm.stats.read()
 * vm.memslots.create({ gpa: 0xa000, mapping: page })
 * statisticsGrowth(before, vm.stats.read())   // {}
 */
export function statisticsGrowth(before: Values, after: Values): Values {
  checkValues('before', before)
  checkValues('after', after)
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, value]): [string, number | number[]] => [name, differenceOf(before[name], value)])
      .filter(([, difference]) => isChange(difference))
  )
}

/** Reads counters again and again, and reports their differences since the last reading. */
export class Growth {
  readonly #sources: () => Iterable<Counters>
  /** The last reading of each source. It is null if the source could not be read when the trace began, so that its first values are no growth. */
  readonly #last = new WeakMap<Counters, { values: Values; time: number } | null>()
  /** Why some sources could not be read when the trace began. */
  readonly missing: string[] = []

  constructor(sources: () => Iterable<Counters>, time: number) {
    this.#sources = sources
    for (const source of sources()) {
      const { values, busy } = readingOf(source)
      this.#last.set(source, values ? { values, time } : null)
      if (busy) this.missing.push(`its counters are reported from the first drain on that finds it stopped: ${busy.message}`)
    }
  }

  /** Returns the changes since the last call. A vCPU made since then began at 0. A source that cannot be read now is reported later. */
  take(time: number): { of: string; since: number; changes: Values }[] {
    return [...this.#sources()].flatMap((source) => {
      const { values } = readingOf(source)
      if (!values) return []
      const last = this.#last.get(source)
      this.#last.set(source, { values, time })
      const changes = last === null ? {} : statisticsGrowth(last?.values ?? {}, values)
      return Object.keys(changes).length === 0 ? [] : [{ of: source.describe().id, since: last?.time ?? time, changes }]
    })
  }
}

/** Reads a source. While a vCPU runs, KVM opens no statistics of it, but reads those that were opened before. */
function readingOf(source: Counters): { values?: Values; busy?: KvmError } {
  try {
    return { values: source.read() }
  } catch (error) {
    if (error instanceof KvmError && error.code === 'busy') return { busy: error }
    throw error
  }
}
