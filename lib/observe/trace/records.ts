/** Reads samples in the layout of perf_event_open(2), and orders them in time across CPUs. */

// The layout is struct perf_event_header, then TID, TIME, CPU, RAW, as native/observe/trace_ring.cc requests them.
const sizeAt = 6
const processAt = 8
const threadAt = 12
const timeAt = 16
const cpuAt = 24
const dataAt = 36

export const sizeOf = (view: DataView, at: number) => view.getUint16(at + sizeAt, true)
export const processOf = (view: DataView, at: number) => view.getInt32(at + processAt, true)
export const threadOf = (view: DataView, at: number) => view.getInt32(at + threadAt, true)
export const cpuOf = (view: DataView, at: number) => view.getUint32(at + cpuAt, true)
const timeOf = (view: DataView, at: number) => view.getUint32(at + timeAt, true) + view.getUint32(at + timeAt + 4, true) * 2 ** 32

/** Returns the number of the tracepoint, with which its data begin. */
export const idOf = (view: DataView, at: number) => view.getUint16(at + dataAt, true)
export const dataOf = (at: number) => at + dataAt

/** The samples of one CPU, oldest first, and how far they were read. */
export class Cursor {
  readonly view: DataView
  at = 0
  time = Infinity

  constructor(records: Uint8Array) {
    this.view = new DataView(records.buffer, records.byteOffset, records.byteLength)
    this.#look()
  }

  #look(): void {
    this.time = this.at < this.view.byteLength ? timeOf(this.view, this.at) : Infinity
  }

  next(): void {
    this.at += sizeOf(this.view, this.at)
    this.#look()
  }
}

/**
 * Calls `visit` for each sample up to `until`, in order of time. Later samples stay for the next call, since another CPU may still deliver one from
 * in between.
 */
export function merge(cursors: readonly Cursor[], until: number, visit: (view: DataView, at: number, time: number) => void): void {
  for (;;) {
    let first: Cursor | undefined
    let second = Infinity
    for (const cursor of cursors) {
      if (!first || cursor.time < first.time) {
        second = first ? first.time : second
        first = cursor
      } else if (cursor.time < second) second = cursor.time
    }
    if (!first || first.time > until) return
    const limit = Math.min(second, until)
    do {
      visit(first.view, first.at, first.time)
      first.next()
    } while (first.time <= limit)
  }
}
