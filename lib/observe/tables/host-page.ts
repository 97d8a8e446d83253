/** Describes a page of the host in more detail than its page-table entry does: /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst). */
import { closeSync, openSync, readSync } from 'node:fs'
import type { Hpa } from '../../abi/addresses.js'
import { pageSize } from '../../abi/arguments.js'
import { openingOr } from '../../abi/exhausted.js'

/** The bits of {@link PageColumns.host}, which the add-on sets (native/observe/page_rows.h). */
export const hostBits = { present: 1, swapped: 2, fileOrShared: 4, exclusive: 8, softDirty: 16, huge: 32, zeroPage: 64 } as const

/** How the kernel uses a frame. */
export interface FrameFlags {
  anonymous: boolean
  /** The frame is part of a transparent huge page, or of a page of the hugetlb pool. It may still be mapped in small pieces. */
  transparentHuge: boolean
  hugetlb: boolean
  /** KSM merged the page with equal pages of other processes. */
  ksm: boolean
  zeroPage: boolean
}

// The KPF_ bits of <linux/kernel-page-flags.h>.
const bits = { anonymous: 12n, hugetlb: 17n, ksm: 21n, transparentHuge: 22n, zeroPage: 24n }

/** @internal Returns the flags of a frame, or null if /proc/kpageflags cannot be read, which needs root. */
export function frameFlags(hpa: Hpa): FrameFlags | null {
  const word = new BigUint64Array(1)
  const count = openingOr(0, 'reading /proc/kpageflags', () => {
    const file = openSync('/proc/kpageflags', 'r')
    try {
      return readSync(file, new Uint8Array(word.buffer), 0, 8, Math.floor(hpa / pageSize) * 8)
    } finally {
      closeSync(file)
    }
  })
  if (count !== 8) return null
  const is = (bit: bigint) => (((word[0] as bigint) >> bit) & 1n) === 1n
  return {
    anonymous: is(bits.anonymous),
    transparentHuge: is(bits.transparentHuge),
    hugetlb: is(bits.hugetlb),
    ksm: is(bits.ksm),
    zeroPage: is(bits.zeroPage)
  }
}

/** A page as the host's page tables have it. */
export interface HostView extends Partial<FrameFlags> {
  present: boolean
  swapped: boolean
  fileOrShared: boolean
  /** Whether only this process maps the page. */
  exclusive: boolean
  softDirty: boolean
  /** Whether one entry of an upper level maps the page; null if the kernel lacks PAGEMAP_SCAN (before 6.7), which tells it. */
  huge: boolean | null
}

/** @internal */
export function hostView(flags: number, hpa: Hpa, scanned: boolean): HostView {
  const is = (bit: number) => (flags & bit) !== 0
  return {
    present: is(hostBits.present),
    swapped: is(hostBits.swapped),
    fileOrShared: is(hostBits.fileOrShared),
    exclusive: is(hostBits.exclusive),
    softDirty: is(hostBits.softDirty),
    huge: scanned ? is(hostBits.huge) : null,
    ...(hpa !== 0 ? frameFlags(hpa) : null)
  }
}
