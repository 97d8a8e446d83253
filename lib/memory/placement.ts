/** Where a memslot is, which memory is behind it, and which of its properties a caller may set. */
import type { Gpa } from '../abi/addresses.js'
import { argumentError, checkAddress, checkBoolean, checkInteger, checkOptions, checkSize, hex, pageSize, restAfter } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../abi/generated/constants.js'
import { checkOpen, GuestMemfd } from './guest-memfd.js'
import { Mapping } from './mapping.js'

/** What {@link Memslot.setFlags} can change. */
export interface MemslotFlags {
  /** Whether KVM keeps a bitmap of the pages that the guest wrote (KVM_MEM_LOG_DIRTY_PAGES). */
  logDirty?: boolean
}
/** Options for {@link Memslots.create}. */
export interface MemslotOptions extends MemslotFlags {
  /** The guest-physical address of the first byte, a multiple of 4 KiB. */
  gpa: Gpa
  mapping: Mapping
  /** The offset in the mapping at which the slot begins, a multiple of 4 KiB. The default is 0. */
  offset?: number
  /** The size in bytes. The default is the rest of the mapping. */
  size?: number
  /** Whether guest writes become MMIO exits (KVM_MEM_READONLY). */
  readonly?: boolean
  /** The source of the guest's private pages (KVM_MEM_GUEST_MEMFD). Such a slot can only be deleted, not changed. */
  guestMemfd?: GuestMemfd
  /** The offset in the guest_memfd at which the slot begins, a multiple of 4 KiB. The default is 0. */
  guestMemfdOffset?: number
  /** Further KVM_MEM_ bits, passed on unchanged: for flags that this library does not know. */
  flags?: number
}
/** What {@link Memslot.change} asks the kernel to change. */
export type MemslotChange = Partial<Pick<MemslotOptions, 'gpa' | 'mapping' | 'offset' | 'size' | 'flags'>>

export interface Placement {
  gpa: Gpa
  mapping: Mapping
  offset: number
  size: number
  flags: number
  guestMemfd: GuestMemfd | undefined
  guestMemfdOffset: number
}

/** Returns the KVM_MEM_ bits with dirty logging on or off. */
export function flagsWith(flags: number, { logDirty = false }: MemslotFlags): number {
  return ((flags & ~KVM_MEM_LOG_DIRTY_PAGES) | (checkBoolean('logDirty', logDirty) ? KVM_MEM_LOG_DIRTY_PAGES : 0)) >>> 0
}

export function placementOf(options: MemslotOptions): Placement {
  checkOptions('options', options, ['gpa', 'mapping', 'offset', 'size', 'readonly', 'logDirty', 'guestMemfd', 'guestMemfdOffset', 'flags'])
  const { gpa, mapping, offset = 0, readonly = false, logDirty = false, guestMemfd, guestMemfdOffset = 0, flags = 0 } = options
  if (!(mapping instanceof Mapping)) throw argumentError('mapping', mapping, 'a Mapping')
  if (guestMemfd !== undefined && !(guestMemfd instanceof GuestMemfd)) throw argumentError('guestMemfd', guestMemfd, 'a GuestMemfd')
  const named =
    (checkBoolean('logDirty', logDirty) ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
    (checkBoolean('readonly', readonly) ? KVM_MEM_READONLY : 0) |
    (guestMemfd ? KVM_MEM_GUEST_MEMFD : 0)
  const { size = restAfter(offset, mapping.size) } = options
  return { gpa, mapping, offset, size, guestMemfd, guestMemfdOffset, flags: (named | checkInteger('flags', flags, 0, 0xffff_ffff)) >>> 0 }
}

export function checkPlacement(placement: Placement): Placement {
  const { gpa, mapping, offset, size, guestMemfd, guestMemfdOffset } = placement
  checkAddress('gpa', gpa, pageSize)
  if (!(mapping instanceof Mapping)) throw argumentError('mapping', mapping, 'a Mapping')
  checkAddress('offset', offset, pageSize)
  if (offset >= mapping.size) throw argumentError('offset', offset, `below the mapping's size, ${hex(mapping.size)}`)
  checkSize('size', size, pageSize)
  checkEnd('size', size, offset, mapping.size, 'mapping')
  checkAddress('guestMemfdOffset', guestMemfdOffset, pageSize)
  if (guestMemfd === undefined) return placement
  checkOpen(guestMemfd)
  checkEnd('guestMemfdOffset', size, guestMemfdOffset, guestMemfd.size, 'guest_memfd')
  return placement
}

function checkEnd(argument: string, size: number, offset: number, end: number, of: string): void {
  if (offset + size > end)
    throw new KvmError('argument', `size ${hex(size)} at offset ${hex(offset)} reaches past the ${of}'s end at ${hex(end)}`, { argument })
}
