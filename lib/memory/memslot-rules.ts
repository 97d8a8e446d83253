/** Finds the rule that a memslot breaks. KVM answers EINVAL for all of them (__kvm_set_memory_region(), kvm_arch_prepare_memory_region()). */
import { hex, hexRange, pageSize } from '../abi/arguments.js'
import { KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../abi/generated/constants.js'
import { glance } from '../abi/procfs.js'
import { guestPhysicalLimit } from './guest-physical.js'
import type { Placement } from './placement.js'

/** KVM_MEM_MAX_NR_PAGES: a memslot counts its pages in 31 bits. */
const mostBytes = (2 ** 31 - 1) * pageSize

/** What is needed to judge a change of the table. */
export interface Asked {
  /** The present placement of a slot that is changed in place; null for a new slot. */
  before: Placement | null
  after: Placement
  /** The other slots' placements. */
  others: () => Iterable<Placement>
  /** Whether the guest_memfd was made by this VM. */
  ownsGuestMemfd: boolean
  /** Returns the answer of KVM_CHECK_EXTENSION for KVM_CAP_READONLY_MEM. */
  allowsReadonly: () => boolean
}

function ofLiveSlot(before: Placement, after: Placement): string | undefined {
  if (before.guestMemfd) return 'a slot with a guest_memfd cannot change: delete() it and create() it again'
  if (before.mapping !== after.mapping || before.offset !== after.offset)
    return 'other memory cannot be put behind a live slot in one ioctl: rebind() does it'
  if (before.size !== after.size) return `the size of a live slot, ${hex(before.size)}, cannot change in one ioctl: resize() does it`
  if ((before.flags ^ after.flags) & KVM_MEM_READONLY)
    return 'readonly (KVM_MEM_READONLY) of a live slot cannot change: delete() it and create() it again'
  return undefined
}

function ofGuestMemfd({ after, others, ownsGuestMemfd }: Asked): string | undefined {
  const { guestMemfd, guestMemfdOffset, size, flags } = after
  if (!guestMemfd) return flags & KVM_MEM_GUEST_MEMFD ? 'KVM_MEM_GUEST_MEMFD (flag 0x4) needs the option guestMemfd' : undefined
  if (!ownsGuestMemfd) return 'the guest_memfd belongs to another VM, and only that VM can use it'
  if (flags & KVM_MEM_LOG_DIRTY_PAGES) return 'a slot with a guest_memfd cannot be dirty-logged (KVM_MEM_LOG_DIRTY_PAGES)'
  if (flags & KVM_MEM_READONLY) return 'a slot with a guest_memfd cannot be readonly (KVM_MEM_READONLY)'
  for (const other of others())
    if (other.guestMemfd === guestMemfd && other.guestMemfdOffset < guestMemfdOffset + size && guestMemfdOffset < other.guestMemfdOffset + other.size)
      return `the slot at gpa ${hexRange(other.gpa, other.size)} has these pages of the guest_memfd, and a page can be behind one slot only`
  return undefined
}

/** Describes the first rule that the change breaks. Returns undefined if it breaks no known rule. */
export function brokenRule(asked: Asked): string | undefined {
  const { before, after, allowsReadonly } = asked
  const limit = guestPhysicalLimit(undefined, (path) => glance(path).trim() || null)
  const unknown = after.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD)
  if (before) {
    const why = ofLiveSlot(before, after)
    if (why) return why
  }
  if (after.gpa + after.size > limit)
    return `the slot reaches past the end of guest-physical addresses on this host, ${hex(limit)} (2^${Math.log2(limit)})`
  if (after.size > mostBytes) return `one slot has at most ${hex(mostBytes)} bytes, 8 TiB less one page: use two slots`
  const why = ofGuestMemfd(asked)
  if (why) return why
  if (unknown !== 0) return `KVM of this kernel knows no flag ${hex(unknown >>> 0)}`
  if (after.flags & KVM_MEM_READONLY && !allowsReadonly()) return 'KVM has no readonly slots here (KVM_CAP_READONLY_MEM)'
  return undefined
}
