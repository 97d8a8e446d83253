/** The add-on, and the types of what it exports. Only the rooms abi, memory and kvm import this. */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** An owned file descriptor; closed when its object is collected, at the latest. Results below 0 are a negative errno. */
export interface NativeDescriptor {
  /** -1 once closed. */
  readonly fd: number
  /** `argument` is absent, a number passed by value, or a buffer at least as large as the request number says. */
  ioctl(request: number, argument?: number | Uint8Array): number
  /** For requests with a counted array: the count stands at offset 0, the entries behind `headerSize` bytes. */
  ioctlCounted(request: number, argument: Uint8Array, headerSize: number, entrySize: number): number
  /** KVM_GET_STATS_FD, on a VM or a vCPU. */
  openStatistics(): NativeDescriptor | number
  /** pread(2) into the buffer. */
  read(target: Uint8Array, position: number): number
  close(): void
}

export interface NativeKvm extends NativeDescriptor {
  createVm(type: number): NativeVm | number
}

export interface NativeVm extends NativeDescriptor {
  /** KVM_SET_USER_MEMORY_REGION or its second form; `userspace_addr` is filled in from the region, which the VM holds as long as the
   * slot exists. A null region deletes the slot. */
  setMemoryRegion(request: number, argument: Uint8Array, region: NativeRegion | null, offset: number): number
  createGuestMemfd(request: number, argument: Uint8Array): NativeDescriptor | number
  /** KVM_GET_DIRTY_LOG; refused with -EINVAL when the bitmap is smaller than the slot needs. */
  getDirtyLog(slot: number, bitmap: Uint8Array): number
  createVcpu(id: number, mmapSize: number): NativeVcpu | number
}

export interface TraceRequest {
  /** `startOffset`, `endOffset`: where the raw data hold an HVA range; 0 for events without. `filter`: in the kernel's filter language, or empty. */
  events: { id: number; startOffset: number; endOffset: number; filter: string }[]
  /** Process ids; none means every process. */
  processes: number[]
  /** And what those fork. */
  children: boolean
  /** Bytes for each CPU: a power of two, whole pages. */
  ringSize: number
  /** Bytes held until the next drain; what comes beyond is lost, and counted. */
  heldLimit: number
}

/** Tracepoint rings, one for each CPU, and the thread that empties them. */
export interface NativeTracer {
  /** PERF_RECORD_SAMPLE records (TID, TIME, CPU, RAW), one array for each CPU that had any, oldest first. */
  drain(): Uint8Array[]
  lost(): number
  /** Pairs of start and end; null means everywhere. */
  setRanges(bounds: number[] | null): void
  /** A socket, the caller's to close, on which a byte comes when there is something to drain. */
  subscribe(): number
  close(): void
}

declare const handleBrand: unique symbol
/** Opaque; holds the vCPU's parts, and is harmless once the vCPU is closed. */
export interface VcpuHandle {
  readonly [handleBrand]: true
}

export interface NativeVcpu extends NativeDescriptor {
  /** What runVcpu() and ioctlVcpu() know it by. */
  handle(): VcpuHandle
  /** From any thread: the run in progress, or else the next one, returns -EINTR. */
  kick(): void
  /** Copies bytes of the shared run page: sync regs and the like. */
  readRunPage(offset: number, target: Uint8Array): number
  writeRunPage(offset: number, source: Uint8Array): number
}

export interface RegionOptions {
  kind: 'anonymous' | 'memfd' | 'hugetlb' | 'file'
  size: number
  /** hugetlb: bytes in a huge page. */
  hugePageSize?: number
  address?: number
  fixed?: boolean
  populate?: boolean
  /** file: the path's open descriptor, which the region duplicates, and where in it to begin. */
  fd?: number
  offset?: number
  /** file: MAP_SHARED rather than MAP_PRIVATE. */
  shared?: boolean
  readonly?: boolean
}

/** Host memory that is unmapped when no handle, slot or buffer holds it. Results below 0 are a negative errno. */
export interface NativeRegion {
  /** The HVA of the first byte; 0 once released. */
  readonly address: number
  readonly size: number
  /** Slots of any VM that hold it. */
  readonly slots: number
  read(offset: number, target: Uint8Array): number
  write(offset: number, source: Uint8Array): number
  fill(offset: number, length: number, value: number): number
  remap(offset: number, length: number, content: Uint8Array | null): number
  advise(offset: number, length: number, advice: number): number
  protect(offset: number, length: number, protection: number): number
  /** The one live buffer of this environment, or a negative errno where a live view could fault. */
  buffer(): SharedArrayBuffer | ArrayBuffer | number
  /** Whether this environment's buffer is alive. */
  readonly buffered: boolean
  release(): void
}

export interface NativeAddon {
  /** open(2); a negative errno on failure. */
  open(path: string, writable: boolean): NativeKvm | number
  map(options: RegionOptions): NativeRegion | number
  trace(request: TraceRequest): NativeTracer | number
  /** A mount of tracefs that is in no namespace: its files are reached below /proc/self/fd/N. */
  openTracefs(): NativeDescriptor | number
  /** Runs until an exit that user space must see; copies the exit into `area` and the answer of the last one out of it.
   * Returns the exit reason, or a negative errno; `timeoutMs` below 0 means none. */
  runVcpu(vcpu: VcpuHandle, area: Uint8Array, timeoutMs: number): number
  /** {@link NativeDescriptor.ioctl} of a vCPU, without the look-up of its object. */
  ioctlVcpu(vcpu: VcpuHandle, request: number, argument: Uint8Array): number
}

const require = createRequire(import.meta.url)

/** dist/lib/abi and lib/abi lie at different depths below the package. */
const packageRoot = fileURLToPath(new URL(import.meta.url.includes('/dist/lib/') ? '../../..' : '../..', import.meta.url))

/** NODE_KVM_ADDON names another build of the add-on: the sanitizers' one. */
const otherBuild = process.env['NODE_KVM_ADDON']

export const native: NativeAddon = otherBuild ? require(otherBuild) : (require('node-gyp-build') as (directory: string) => NativeAddon)(packageRoot)
