/** Explains why host memory was not mapped, changed or reached: what the kernel said, and the cause if it can be seen. */
import { existsSync } from 'node:fs'
import { GiB, hex, KiB, MiB } from '../abi/arguments.js'
import { errnoName, exhaustion, KvmError } from '../abi/errors.js'
import type { RegionOptions } from '../abi/native.js'
import { glance, holds, isFiltered, limitOf, numberAt, numberIn } from '../abi/procfs.js'

type Kind = RegionOptions['kind']
type Read = (path: string) => string

const bytes = (size: number) =>
  size >= GiB ? `${(size / GiB).toFixed(1)} GiB` : size >= MiB ? `${(size / MiB).toFixed(1)} MiB` : `${Math.ceil(size / KiB)} KiB`

function failure(asked: string, result: number, why: string): KvmError {
  const errno = errnoName(result)
  const exhausted = errno === 'ENOMEM' ? undefined : exhaustion(asked, result)
  return exhausted ?? new KvmError('memory', `${asked}: ${errno}${why && '; '}${why}`, { errno })
}

const filtered =
  'this process is under a seccomp filter: if the filter refuses the system call, start the process outside of the sandbox, or with a filter that allows it'
const notPermitted = () =>
  isFiltered() ? filtered : 'the kernel does not permit it to this process; a security module may have refused it (see dmesg | tail)'

const poolOf = (hugePageSize: number) => `/sys/kernel/mm/hugepages/hugepages-${hugePageSize / KiB}kB`

function whyNoHugePages({ size, hugePageSize = 2 * MiB }: RegionOptions): string {
  const pool = poolOf(hugePageSize)
  const [free, reserved] = [numberAt(`${pool}/free_hugepages`), numberAt(`${pool}/resv_hugepages`)]
  if (free === undefined || reserved === undefined) return 'the pool of huge pages cannot give them'
  const needed = size / hugePageSize
  if (free - reserved < needed)
    return `${needed} huge pages of ${bytes(hugePageSize)} are needed, and ${free - reserved} are free: raise ${pool}/nr_hugepages`
  return "the pool has enough free pages: a limit of this process's cgroup (hugetlb), or of its address space, refuses it"
}

/**
 * In overcommit mode 0 the kernel refuses a mapping larger than memory and swap together, in mode 2 one beyond its commit limit
 * (mm/overcommit-accounting.rst).
 */
function whyNotCommitted(size: number, read: Read): string | undefined {
  const memory = read('/proc/meminfo')
  const inBytes = (name: string) => (numberIn(memory, name) ?? NaN) * KiB
  const mode = read('/proc/sys/vm/overcommit_memory').trim()
  const all = inBytes('MemTotal') + inBytes('SwapTotal')
  if (mode === '0' && size > all)
    return `vm.overcommit_memory is 0, so no mapping may be larger than memory and swap together, ${bytes(all)}: map it with { noReserve: true }, if the guest will not use all of it`
  const [limit, committed] = [inBytes('CommitLimit'), inBytes('Committed_AS')]
  if (mode === '2' && committed + size > limit)
    return `vm.overcommit_memory is 2, and ${bytes(committed)} of the commit limit, ${bytes(limit)}, are taken: raise vm.overcommit_ratio, add swap, or set vm.overcommit_memory to 1`
  return undefined
}

function whyBeyondLimit(size: number, kind: Kind, read: Read): string | undefined {
  const [status, limits] = [read('/proc/self/status'), read('/proc/self/limits')]
  const isBeyond = (row: string, field: string) => (numberIn(status, field) ?? 0) * KiB + size > (limitOf(row, limits)?.soft ?? Infinity)
  if (isBeyond('Max address space', 'VmSize'))
    return 'the mapping would exceed the address space that this process may have: raise the limit (ulimit -v, RLIMIT_AS)'
  if (kind === 'anonymous' && isBeyond('Max data size', 'VmData'))
    return 'the mapping would exceed the data that this process may have: raise the limit (ulimit -d, RLIMIT_DATA)'
  return undefined
}

/** Explains from the state of the host why there is no memory for a mapping. Tests give a host of their own. */
export function whyNoMemory(request: RegionOptions, read: Read = glance): string {
  const { size, kind } = request
  if (kind === 'hugetlb') return whyNoHugePages(request)
  // For the shared kinds the file has the pages, and the size of a memfd reserves none.
  const reserves = kind === 'anonymous' && request.noReserve !== true
  return (
    whyBeyondLimit(size, kind, read) ??
    (reserves ? whyNotCommitted(size, read) : undefined) ??
    (size >= 2 ** 47 - 2 ** 32 ? 'no process has so large an address space' : 'the kernel has no memory for it')
  )
}

function whyNotMapped(request: RegionOptions, errno: string, read: Read): string {
  const { kind, size, address = 0, fixed = false, hugePageSize = 2 * MiB } = request
  switch (errno) {
    case 'ENOMEM':
      return whyNoMemory(request, read)
    case 'EPERM': {
      const least = numberAt('/proc/sys/vm/mmap_min_addr', read) ?? 0
      if (!fixed || address >= least || holds('CapEff', 'sys_rawio', read('/proc/self/status'))) return notPermitted()
      return `the address lies below ${hex(least)} (/proc/sys/vm/mmap_min_addr), where only CAP_SYS_RAWIO may map`
    }
    case 'EFBIG': {
      const limit = limitOf('Max file size', read('/proc/self/limits'))?.soft ?? Infinity
      if (size <= limit) return 'no file can be so large'
      return `files of this process may have ${bytes(limit)}, and a memfd counts as one: raise the limit (ulimit -f, RLIMIT_FSIZE)`
    }
    case 'EEXIST':
      return 'something is already mapped there'
    case 'EINVAL':
      if (kind === 'hugetlb' && existsSync('/sys/kernel/mm/hugepages') && !existsSync(poolOf(hugePageSize)))
        return `this kernel has no huge pages of ${bytes(hugePageSize)}; see /sys/kernel/mm/hugepages`
      return 'the kernel does not support it for this memory'
    case 'EACCES':
      return 'the file, or its file system, does not allow such a mapping'
    case 'ENODEV':
      return 'files of this file system cannot be mapped'
    default:
      return ''
  }
}

/** Makes the error for the static methods of Mapping. */
export function unmappedError(request: RegionOptions, result: number, read: Read = glance): KvmError {
  const { size, kind, address } = request
  const asked = `mapping ${hex(size)} bytes of ${kind} memory${address === undefined ? '' : ` at ${hex(address)}`}`
  return failure(asked, result, whyNotMapped(request, errnoName(result), read))
}

/** The state of a mapping that explains a refusal. */
export interface MappingState {
  kind: Kind
  /** Whether a live buffer of some environment exists. */
  buffered: boolean
  /** Whether this environment serves its faults. */
  served: boolean
}

function whyBusy({ buffered, served }: MappingState): string {
  if (served) return 'the faults of this mapping are served: close its DemandPaging first'
  if (buffered) return 'a live buffer of the mapping exists, and an access through it would crash the process'
  return 'the faults of this mapping are served by another environment'
}

/** Makes the error for the methods of a mapping; `asked` names the range. */
export function memoryError(asked: string, result: number, state: MappingState): KvmError {
  const why: Record<string, () => string> = {
    ENOMEM: () => 'the kernel has no memory for it, or a limit (ulimit -v, the memory.max of the cgroup) refuses more',
    EPERM: notPermitted,
    EACCES: () => 'the file was not opened for this kind of access',
    EFAULT: () =>
      state.kind === 'file'
        ? 'the memory there is protected, lies past the end of its file, or is private to a guest (guest_memfd)'
        : 'the memory there is protected against this access',
    EOPNOTSUPP: () => 'this kind of memory, or its file system, cannot do it',
    EINVAL: () => 'the kernel does not support it for this memory',
    EBUSY: () => whyBusy(state)
  }
  return failure(asked, result, why[errnoName(result)]?.() ?? '')
}

/** Makes the error for an access that would have to wait for a page of served memory. */
export const notServedHere = (asked: string, result: number): KvmError =>
  failure(asked, result, 'a page is not there yet, and another thread serves this mapping')
