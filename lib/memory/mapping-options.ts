/** How host memory may be mapped, advised and protected. */
import type { Hva } from '../abi/addresses.js'
import * as constants from '../abi/generated/constants.js'

/** The advice of madvise(2), by name. */
export const adviceNumbers = {
  normal: constants.MADV_NORMAL,
  random: constants.MADV_RANDOM,
  sequential: constants.MADV_SEQUENTIAL,
  willneed: constants.MADV_WILLNEED,
  dontneed: constants.MADV_DONTNEED,
  free: constants.MADV_FREE,
  remove: constants.MADV_REMOVE,
  mergeable: constants.MADV_MERGEABLE,
  unmergeable: constants.MADV_UNMERGEABLE,
  hugepage: constants.MADV_HUGEPAGE,
  nohugepage: constants.MADV_NOHUGEPAGE,
  cold: constants.MADV_COLD,
  pageout: constants.MADV_PAGEOUT,
  'populate-read': constants.MADV_POPULATE_READ,
  'populate-write': constants.MADV_POPULATE_WRITE,
  collapse: constants.MADV_COLLAPSE
} as const
/** A piece of advice for madvise(2), by name. */
export type Advice = keyof typeof adviceNumbers

export const protections = { none: 0, r: 1, rw: 3, rx: 5, rwx: 7 } as const
/** A protection for mprotect(2), by name. */
export type Protection = keyof typeof protections

/** Options for every kind of mapping. */
export interface MappingOptions {
  /** Brings in every page at once, as huge pages if `hugePages` asks for them. If that fails, an error is thrown and nothing is mapped. */
  populate?: boolean
  /** Transparent huge pages: true asks for them, false forbids them (MADV_HUGEPAGE, MADV_NOHUGEPAGE). */
  hugePages?: boolean
  /** The desired HVA, page-aligned. It is only a hint unless `fixed` is true. */
  address?: Hva
  /** Maps exactly at `address`, or throws; it never replaces another mapping (MAP_FIXED_NOREPLACE). */
  fixed?: boolean
}
/** Options for {@link Mapping.anonymous}. */
export interface AnonymousOptions extends MappingOptions {
  /**
   * Reserves no memory for the mapping (MAP_NORESERVE), so that it may be larger than memory and swap together; with vm.overcommit_memory=2 the
   * kernel ignores this. If a guest or the host then touches more than there is, the kernel's OOM killer ends a process.
   */
  noReserve?: boolean
}
/** Options for {@link Mapping.hugetlb}. */
export interface HugetlbOptions extends MappingOptions {
  /** The bytes in one huge page: 2 MiB (the default) or 1 GiB. */
  hugePageSize?: number
}
/** Options for {@link Mapping.file}. */
export interface FileOptions extends MappingOptions {
  /** The offset in the file at which the mapping begins, page-aligned. */
  offset?: number
  /** Whether writes go to the file (MAP_SHARED). By default they stay private to this process. */
  shared?: boolean
  /** Opens and maps the file read-only. */
  readonly?: boolean
}

/** @internal */
export const commonOptions = ['populate', 'hugePages', 'address', 'fixed'] as const
