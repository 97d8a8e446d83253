/** Finds what is behind a memslot: the mappings of /proc/PID/maps (proc(5)) at its HVAs. */
import { readFileSync } from 'node:fs'
import type { Hva } from '../../abi/addresses.js'
import { openingOr } from '../../abi/exhausted.js'
import { folderOf } from './process-folder.js'

/** A kind of memory. `mixed` means more than one kind in one slot, `unmapped` means none at all. */
export type Backing = 'anonymous' | 'memfd' | 'hugetlb' | 'file' | 'shared' | 'guest_memfd' | 'mixed' | 'unmapped' | 'unknown'

/** One line of /proc/PID/maps. */
export interface HostMapping {
  start: number
  end: number
  backing: Backing
  /** The file's name, if there is one. It may contain any character except newlines, which the kernel writes as `\\012`. */
  path: string
}

function kindOf(path: string): Backing {
  if (path === '' || path.startsWith('[')) return 'anonymous'
  if (path.startsWith('/anon_hugepage') || path.includes('/hugepages') || /\/memfd:.*huge/i.test(path)) return 'hugetlb'
  if (path.startsWith('/memfd:')) return 'memfd'
  if (path.startsWith('/dev/zero') || path.startsWith('/SYSV')) return 'shared'
  if (path.startsWith('anon_inode:[kvm-gmem]')) return 'guest_memfd'
  return 'file'
}

// The kernel escapes only newlines in a path. A carriage return or U+2028, at which `^` and `.` would end a line, is part of the path.
function mappingOf(line: string): HostMapping[] {
  const [, start, end, path] = /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)$/s.exec(line) ?? []
  if (start === undefined || end === undefined || path === undefined) return []
  return [{ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), backing: kindOf(path), path }]
}

/** Returns the mappings of a process by ascending address, or none if they may not be read. */
export function hostMappings(pid: number | 'self'): HostMapping[] {
  const folder = folderOf(pid)
  if (folder === null) return []
  const path = `${folder}/maps`
  return openingOr('', `reading ${path}`, () => readFileSync(path, 'utf8'))
    .split('\n')
    .flatMap(mappingOf)
}

/** Returns the kind of memory at addresses from `hva` on, and the name of the first file. */
export function backingOf(mappings: readonly HostMapping[], hva: Hva, size: number): Pick<HostMapping, 'backing' | 'path'> {
  if (mappings.length === 0) return { backing: 'unknown', path: '' }
  const first = firstUpTo(mappings, hva)
  const next = mappings[first]
  // Most slots are inside one mapping.
  if (next && next.start <= hva && hva + size <= next.end) return next
  const found: HostMapping[] = []
  for (let index = first; index < mappings.length && (mappings[index] as HostMapping).start < hva + size; index++)
    found.push(mappings[index] as HostMapping)
  const kinds = new Set(found.map(({ backing }) => backing))
  const backing = kinds.size === 0 ? 'unmapped' : kinds.size === 1 ? (found[0] as HostMapping).backing : 'mixed'
  return { backing, path: found.find(({ path }) => path !== '')?.path ?? '' }
}

/** Returns the index of the first mapping that ends above `hva`. */
function firstUpTo(mappings: readonly HostMapping[], hva: Hva): number {
  let low = 0
  for (let high = mappings.length; low < high; ) {
    const middle = (low + high) >> 1
    if ((mappings[middle] as HostMapping).end <= hva) low = middle + 1
    else high = middle
  }
  return low
}
