/** Explains why a change of the table was refused. */
import { constants } from 'node:os'
import type { Gpa } from '../abi/addresses.js'
import { hexRange } from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2 } from '../abi/generated/requests.js'
import type { Handle } from '../abi/ioctls.js'
import { type Asked, brokenRule } from './memslot-rules.js'
import type { Placement } from './placement.js'

/** The answer of the kernel or of the table. */
export interface Refusal {
  result: number
  errno: string
  /** The index of the refused change among several. */
  change: number
  /** For EEXIST, the slot that is in the way, if there is one. */
  present: SlotPlace | null
}
interface SlotPlace {
  id: number
  gpa: Gpa
  size: number
}

/** Reads the refusal of one change or of several from their records (native/napi/vm_memslots.cc). */
export function refusalIn(records: Float64Array, result: number): Refusal {
  const [id, change, gpa, size] = [...records.subarray(0, 4)] as [number, number, number, number]
  const errno = errnoName(result)
  return { result, errno, change, present: errno === 'EEXIST' && id >= 0 ? { id, gpa, size } : null }
}

/** The refusal that another environment changed the slot meanwhile. */
export const overtaken = (change: number): Refusal => ({ result: -constants.errno.ESTALE, errno: 'ESTALE', change, present: null })

/** Makes the error for an overlap. The id -1 means a slot that a transaction has yet to make. */
export function overlapError({ gpa, size }: Omit<SlotPlace, 'id'>, present: SlotPlace): KvmError {
  const which = present.id < 0 ? 'another slot of the transaction' : `slot ${present.id}`
  return new KvmError('overlap', `gpa ${hexRange(gpa, size)} overlaps ${which} at gpa ${hexRange(present.gpa, present.size)}`, {
    errno: 'EEXIST',
    asked: { gpa, size },
    present: { id: present.id, gpa: present.gpa, size: present.size }
  })
}

export function conflictError({ id }: { id: number }): KvmError {
  return new KvmError(
    'conflict',
    `memslot ${id} was changed by another environment after this transaction named it, so nothing is changed; repeat the transaction with the table as it is now`,
    { id }
  )
}

/** A change that the kernel refused, with what the table knows of it. */
export interface RefusedChange extends Omit<Asked, 'after'> {
  handle: Handle
  slot: { id: number }
  /** null for a deletion. */
  after: Placement | null
  /** How many memslots the host allows. */
  limit: number
}

/** The add-on's result for a transaction that it could not undo (native/core/memslots.h, kNotUndone). The kernel has a use of its own for EIO. */
const notUndone = -4098

/** Makes the error for a table that is open. */
export function refusedError(change: RefusedChange, { result, errno, present }: Refusal): KvmError {
  const { handle, slot, after, limit } = change
  if (present && after) return overlapError(after, present)
  if (result === notUndone)
    return new KvmError(
      'ioctl',
      `${handle.name}: the kernel refused a part of the transaction, and then refused to undo the rest: the table shows what the kernel has now`,
      { ioctl: KVM_SET_USER_MEMORY_REGION.name }
    )
  if (errno === 'ENOSPC') return new KvmError('limit', `this host allows ${limit} memslots, and all are in use`, { limit })
  const which = slot.id < 0 ? 'a slot' : `slot ${slot.id}`
  return handle.refused(
    after?.guestMemfd ? KVM_SET_USER_MEMORY_REGION2 : KVM_SET_USER_MEMORY_REGION,
    result,
    after ? `putting ${which} at gpa ${hexRange(after.gpa, after.size)}` : `deleting ${which}`,
    { [errno]: () => whyRefused(change, errno) }
  )
}

function whyRefused(change: RefusedChange, errno: string): string | undefined {
  const { after } = change
  if (errno === 'ENOTTY' && after?.guestMemfd) return 'this kernel has no memslots with a guest_memfd: they need Linux 6.8 (KVM_CAP_USER_MEMORY2)'
  return after && (errno === 'EINVAL' || errno === 'EEXIST') ? brokenRule({ ...change, after }) : undefined
}
