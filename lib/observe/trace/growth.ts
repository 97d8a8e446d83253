/** KVM's counters between the drains of a trace: the cross-check of what was lost. */
import { argumentError } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'

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

function checkValues(argument: string, values: Values): void {
  const isValue = (value: unknown) => typeof value === 'number' || (Array.isArray(value) && value.every((part) => typeof part === 'number'))
  if (typeof values !== 'object' || values === null || !Object.values(values).every(isValue))
    throw argumentError(argument, values, 'what read() of Statistics returned')
}

/**
 * By how much counters differ between two readings: those that changed, of a histogram each bucket.
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

/** Reads counters again and again, and tells by how much they grew since. */
export class Growth {
  readonly #sources: () => Iterable<Counters>
  /** By source; null of one that could not be read when this began, so that its first values are no growth. */
  readonly #last = new WeakMap<Counters, { values: Values; time: number } | null>()
  /** Why some were not read when this began. */
  readonly missing: string[] = []

  constructor(sources: () => Iterable<Counters>, time: number) {
    this.#sources = sources
    for (const source of sources()) {
      const { values, busy } = readingOf(source)
      this.#last.set(source, values ? { values, time } : null)
      if (busy) this.missing.push(`what it counts is told from the first drain on that finds it at rest: ${busy.message}`)
    }
  }

  /** Whose changed since the last call; a vCPU made since then began at 0. One that cannot be read now is told of later. */
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

/** While a vCPU runs KVM opens no statistics of it, and reads those that were opened before. */
function readingOf(source: Counters): { values?: Values; busy?: KvmError } {
  try {
    return { values: source.read() }
  } catch (error) {
    if (error instanceof KvmError && error.code === 'busy') return { busy: error }
    throw error
  }
}
