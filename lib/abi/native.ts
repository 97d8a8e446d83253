/** The add-on, and the types of what it exports. Only the rooms abi, memory, kvm and translation import this. */
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
  punchHole(offset: number, length: number): number
  protect(offset: number, length: number, protection: number): number
  /** The one live buffer of this environment, or a negative errno where a live view could fault. */
  buffer(): SharedArrayBuffer | ArrayBuffer | number
  /** Whether this environment's buffer is alive. */
  readonly buffered: boolean
  release(): void
}

/** Why VMs cannot be read from outside: the step that was refused, and its negative errno. */
export interface TableFailure {
  step: 'map' | 'loader' | 'program' | 'room' | 'iterator' | 'walk' | 'fields'
  error: number
  /** A bit for each field the kernel lacks (native/bpf/layout.h, field_bit). */
  missingFields: number
  /** What the kernel's verifier said. */
  log: string
}

/** Kernel addresses are bigints, 0n where unknown. */
export interface TableRequest {
  /** 0: every process. */
  pid: number
  /** -1: every descriptor. */
  fd: number
  /** Whether to read the second stage too. */
  tables: boolean
  pageOffsetBase: bigint
  mmioMaskAddress: bigint
  mmioValueAddress: bigint
  meMaskAddress: bigint
}

/** Memslots as columns, ordered by address space and GPA. */
export interface SlotColumns {
  gpa: Float64Array
  size: Float64Array
  hva: Float64Array
  flags: Uint32Array
  id: Int16Array
  addressSpace: Uint8Array
  guestMemfd: Uint8Array
}

/** Last-level entries of the second stage as columns, ordered by address space, GPA and level. */
export interface LeafColumns {
  gpa: Float64Array
  hpa: Float64Array
  spte: BigUint64Array
  role: Uint32Array
  level: Uint8Array
  addressSpace: Uint8Array
  /** 1 a TDP MMU's, 2 a shadow page's, 3 one's whose GPAs it keeps beside, 4 a note that the page is MMIO. */
  kind: Uint8Array
}

/** One descriptor of a VM. */
export interface NativeMachine {
  /** Tells one VM from another; nothing more. */
  kvm: bigint
  pid: number
  fd: number
  command: string
  vcpus: number
  /** 1 the process's memory is what the slots map, 2 another descriptor told of this VM, 4 TDP tables could not be found in memory. */
  flags: number
  addressSpaces: number
  failedReads: number
  /** Tables that had no room, or were given away while they were copied. */
  lost: number
  invalidationsBefore: number
  invalidationsAfter: number
  /** Of the memslots: before for each address space, then after. */
  generations: BigUint64Array
  setSwapped: number
  mmioMask: bigint
  slots: SlotColumns
  leaves: LeafColumns
}

/** joinTables(): a row for each page, ordered by slot and GPA. */
export interface PageColumns {
  gpa: Float64Array
  hva: Float64Array
  /** 0 where unknown or absent. */
  hpa: Float64Array
  secondHpa: Float64Array
  spte: BigUint64Array
  /** The row in the slots. */
  slot: Uint32Array
  host: Uint16Array
  level: Uint8Array
  kind: Uint8Array
  framesHidden: boolean
  scanned: boolean
  compared: number
  disagreeing: number
}

export interface NativeAddon {
  /** Loads the BPF program, once a process; null when it is loaded. */
  loadTables(): TableFailure | null
  readTables(request: TableRequest): NativeMachine[] | TableFailure
  /** Reads the host page tables of the slots at GPAs from `from` up to `to`, and puts all three tables side by side. A negative errno on failure. */
  joinTables(pagemapPath: string, slots: SlotColumns, leaves: LeafColumns, from: number, to: number): PageColumns | number
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
