/** Changes and rows of the table, as the eight numbers per record that the add-on takes and returns (native/napi/vm_memslots.cc). */
import type { Gpa } from '../abi/addresses.js'
import type { NativeMemslots, NativeRegion } from '../abi/native.js'
import { descriptorOf } from './guest-memfd.js'
import { regionOf } from './mapping.js'
import type { Placement } from './placement.js'

/** How many numbers one record has. */
export const recordLength = 8

/** The state of a slot from which a change is computed. A slot that is yet to be made has the id -1. */
export interface SlotState {
  readonly id: number
  /** The number of the change that left the slot in this state; 0 for a slot that is yet to be made. */
  readonly changed: number
}

/** Writes a request for a slot's new placement; null deletes the slot. Returns the region to hand over, or null if the slot keeps its own. */
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
  // An existing slot has its own guest_memfd, whatever became of the handle.
  records[at + 6] = after.guestMemfd === undefined || id >= 0 ? -1 : descriptorOf(after.guestMemfd)
  records[at + 7] = after.guestMemfdOffset
  // A slot may outlive the handle of its mapping, but other memory needs an open handle.
  return after.mapping === before?.mapping ? null : regionOf(after.mapping)
}

/** A row that changed. `created` is 0 if there is no slot of this id any more. */
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
