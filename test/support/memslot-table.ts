import { constants } from 'node:os'
import type { NativeMemslots, NativeRegion } from '../../lib/abi/native.js'
import { recordLength } from '../../lib/memory/memslot-words.js'

const { ESTALE, EEXIST, EINVAL, ENOSPC } = constants.errno

/** A slot in the table. An id without a slot has a `created` of 0. */
export interface TableRow {
  readonly id: number
  readonly created: number
  readonly changed: number
  readonly gpa: number
  readonly size: number
  readonly offset: number
  readonly flags: number
  readonly region: NativeRegion | null
}

const meet = (one: TableRow, other: TableRow) => one.gpa < other.gpa + other.size && other.gpa < one.gpa + one.size
const inPlace = (before: TableRow, after: TableRow) =>
  before.region === after.region && before.offset === after.offset && before.size === after.size && ((before.flags ^ after.flags) & ~1) === 0

/** A model of native/core/memslots.h without a kernel: each method is one step. */
export class Table {
  generation = 0
  #rows: readonly TableRow[] = []
  #free: readonly number[] = []
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  clone(): Table {
    const copy = new Table(this.#limit)
    copy.generation = this.generation
    copy.#rows = this.#rows
    copy.#free = this.#free
    return copy
  }

  get rows(): TableRow[] {
    return this.#rows.filter(({ created }) => created !== 0)
  }

  /** Makes one change by the kernel's one ioctl, or all changes together, or none. The answer is in the records. */
  change(records: Float64Array, regions: readonly (NativeRegion | null)[], alone: boolean): number {
    const free = [...this.#free]
    const known = [...this.#rows]
    let provided = 0
    const wanted: TableRow[] = []
    for (const [index, region] of regions.entries()) {
      const [id, changed, gpa, size, offset, flags] = [...records.subarray(index * recordLength)] as [number, number, number, number, number, number]
      const before = id < 0 ? undefined : known[id]
      if (id >= 0 && (!before?.created || before.changed !== changed)) return this.#refuse(records, -ESTALE, index)
      for (provided += id < 0 ? 1 : 0; free.length < provided; ) {
        if (known.length >= this.#limit) return this.#refuse(records, -ENOSPC, index)
        free.push(known.length)
        known.push({ id: known.length, created: 0, changed: 0, gpa: 0, size: 0, offset: 0, flags: 0, region: null })
      }
      wanted.push({ id, created: before?.created ?? 0, changed, gpa, size, offset, flags, region: region ?? before?.region ?? null })
    }
    this.#rows = [...known]
    this.#free = [...free]
    const after = wanted.map((row) => (row.id < 0 ? { ...row, id: free.pop() as number } : row))
    const others = known.filter(({ id, created }) => created !== 0 && !after.some((row) => row.id === id))
    for (const [index, row] of after.entries()) {
      if (row.size === 0) continue
      const before = known[row.id] as TableRow
      if (alone && before.created !== 0 && !inPlace(before, row)) return this.#refuse(records, -EINVAL, index)
      const other = others.find((present) => meet(present, row))
      if (other || after.some((peer, at) => at < index && peer.size > 0 && meet(peer, row))) return this.#refuse(records, -EEXIST, index, other)
    }
    for (const [index, row] of after.entries()) {
      const number = ++this.generation
      const gone = row.size === 0
      known[row.id] = { ...row, created: gone ? 0 : row.created || number, changed: number, region: gone ? null : row.region }
      if (gone) free.push(row.id)
      records.set([row.id, number], index * recordLength)
    }
    this.#rows = known
    this.#free = free
    return 0
  }

  #refuse(records: Float64Array, error: number, change: number, present?: TableRow): number {
    records.set([present?.id ?? -1, change, present?.gpa ?? 0, present?.size ?? 0])
    return error
  }

  since(generation: number): NativeMemslots {
    const newer = this.#rows.filter(({ changed }) => changed > generation)
    const regions = [...new Set(newer.map(({ region }) => region))]
    const rows = newer.flatMap(({ id, created, changed, gpa, size, offset, flags, region }) => [
      id,
      created,
      changed,
      ...(created === 0 ? [0, 0, 0, 0] : [gpa, size, offset, flags]),
      regions.indexOf(region)
    ])
    return { generation: this.generation, rows: new Float64Array(rows), regions }
  }
}
