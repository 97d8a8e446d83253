/** What this process itself does to the first two tables, told to those who watch: the cause of much that KVM then does. */
import type { Gpa, Hva } from '../abi/addresses.js'
import { takeEach } from '../abi/errors.js'

/** A memslot as it was at one moment. */
export interface MemslotRow {
  id: number
  gpa: Gpa
  size: number
  hva: Hva
}

/** Nanoseconds of CLOCK_MONOTONIC, the clock of process.hrtime(), around the call. */
export interface Span {
  begin: number
  end: number
}

/** A change of the memslot table; `before` and `after` are null where the slot was or is absent. */
export interface MemslotChanged extends Span {
  of: 'memslot'
  did: 'create' | 'move' | 'flags' | 'rebind' | 'resize' | 'delete' | 'change'
  table: object
  before: MemslotRow | null
  after: MemslotRow | null
}

/** A change of what lies under host-virtual addresses. */
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

/** Calls `watcher` after each change of this environment, until the returned function is called. */
export function watchChanges(watcher: Watcher): () => void {
  watchers.add(watcher)
  return () => watchers.delete(watcher)
}

const now = () => Number(process.hrtime.bigint())

/** Whether anybody watches: for who would not even say what there is to tell. */
export const isWatched = () => watchers.size > 0

/** Does the work, and tells the watchers of it unless it failed: threw, or gave a negative errno. Nothing is spent while there are none. */
export function announcing(work: () => number, describe: () => Unspanned<OwnChange>[]): number {
  if (!isWatched()) return work()
  const begin = now()
  const result = work()
  if (result < 0) return result
  const end = now()
  // It happened: each watcher hears of it, also when another one throws.
  takeEach(describe().flatMap((change) => [...watchers].map((watcher) => () => watcher({ ...change, begin, end } as OwnChange))))
  return result
}
