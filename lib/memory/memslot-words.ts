/** Changes and rows of the table, in the numbers that the add-on takes and gives (native/napi/vm_memslots.cc): eight for each. */
import type { Gpa } from '../abi/addresses.js'
import type { NativeMemslots, NativeRegion } from '../abi/native.js'
import { descriptorOf } from './guest-memfd.js'
import { regionOf } from './mapping.js'
import type { Placement } from './placement.js'

/** Numbers of one record. */
export const recordLength = 8

/** A slot as a change is computed from it; one to be has the id -1. */
export interface SlotState {
  readonly id: number
  /** The number of the change that left it so; 0 for one to be. */
  readonly changed: number
}

/** Asks for a slot's new placement; null takes it away. Returns the region to hand over: null for the one that the slot has. */
export function putChange(records: Float64Array, at: number, { id, changed }: SlotState, before: Placement | null, after: Placement | null) {
  records[at] = id
  records[at + 1] = changed
  if (after === null) {
    for (let place = 2; place < recordLength; place++) records[at + place] = 0
    return null
  }
  records[at + 2] = after.gpa
  records[at + 3] = after.size
  records[at + 4] = after.offset
  records[at + 5] = after.flags
  // A slot that is there has its own, whatever became of the handle.
  records[at + 6] = after.guestMemfd === undefined || id >= 0 ? -1 : descriptorOf(after.guestMemfd)
  records[at + 7] = after.guestMemfdOffset
  // A slot may outlive the handle of its mapping; other memory needs an open one.
  return after.mapping === before?.mapping ? null : regionOf(after.mapping)
}

/** A row that changed; `created` is 0 where there is no slot of this id any more. */
export interface ChangedRow extends SlotState {
  created: number
  gpa: Gpa
  size: number
  offset: number
  flags: number
  region: NativeRegion | null
}

export function rowsOf({ rows, regions }: NativeMemslots): ChangedRow[] {
  return Array.from({ length: rows.length / recordLength }, (_, row) => {
    const number = (place: number) => rows[row * recordLength + place] as number
    const [id, created, changed, gpa, size, offset, flags] = [0, 1, 2, 3, 4, 5, 6].map(number) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number
    ]
    return { id, created, changed, gpa, size, offset, flags, region: regions[number(7)] as NativeRegion | null }
  })
}
