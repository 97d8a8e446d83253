/** Reports what this process itself does to the first two tables. These changes cause much of what KVM does afterwards. */
import type { Gpa, Hva } from '../abi/addresses.js'
import { takeEach } from '../abi/errors.js'

/** A memslot as it was at one moment. */
export interface MemslotRow {
  id: number
  gpa: Gpa
  size: number
  hva: Hva
}

/** The time of the call, in nanoseconds of CLOCK_MONOTONIC, the clock of process.hrtime(). */
export interface Span {
  begin: number
  end: number
}

/** A change of the memslot table. `before` or `after` is null if the slot was or is absent. */
export interface MemslotChanged extends Span {
  of: 'memslot'
  did: 'create' | 'move' | 'flags' | 'rebind' | 'resize' | 'delete' | 'change'
  table: object
  before: MemslotRow | null
  after: MemslotRow | null
}

/** A change of the memory at host-virtual addresses. */
export interface MappingChanged extends Span {
  of: 'mapping'
  did: string
  hva: Hva
  size: number
}

export type OwnChange = MemslotChanged | MappingChanged
type Unspanned<T> = T extends unknown ? Omit<T, keyof Span> : never

type Watcher = (change: OwnChange) => void
const watchers = new Set<Watcher>()

/** Calls `watcher` after each change in this environment, until the returned function is called. */
export function watchChanges(watcher: Watcher): () => void {
  watchers.add(watcher)
  return () => watchers.delete(watcher)
}

const now = () => Number(process.hrtime.bigint())

/** Whether there are watchers. If there are none, callers need not even describe a change. */
export const isWatched = () => watchers.size > 0

/** Does the work and then reports it to the watchers, unless it threw or returned a negative errno. Without watchers this costs nothing. */
export function announcing(work: () => number, describe: () => Unspanned<OwnChange>[]): number {
  if (!isWatched()) return work()
  const begin = now()
  const result = work()
  if (result < 0) return result
  const end = now()
  // The change is made, so each watcher hears of it even if another one throws.
  takeEach(describe().flatMap((change) => [...watchers].map((watcher) => () => watcher({ ...change, begin, end } as OwnChange))))
  return result
}
