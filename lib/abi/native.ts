/** The add-on, and the types of what it exports. Only the rooms abi, memory, kvm and translation import this. */
import { isMainThread } from 'node:worker_threads'
import { loadAddon } from './addon.js'
import type { LeafColumns, PageColumns, SlotColumns } from './columns.js'
import { exhaustion } from './errors.js'
import { reclaimBy } from './exhausted.js'

/** An owned file descriptor; closed when its object is collected, at the latest. Results below 0 are a negative errno. */
export interface NativeDescriptor {
  /** -1 once closed. */
  readonly fd: number
  /** `argument` is absent, a number passed by value, or a buffer at least as large as the request number says. */
  ioctl(request: number, argument?: number | Uint8Array): number
  /** For requests with an array behind their structure, whose length stands at offset 0 (native/core/requests.h lists both kinds). */
  ioctlCounted(request: number, argument: Uint8Array): number
  /** KVM_GET_STATS_FD, on a VM or a vCPU. */
  openStatistics(): NativeDescriptor | number
  /** fallocate(2) of whole pages, which keeps the file's size: pages that are there afterwards, or none. */
  allocate(punch: boolean, offset: number, length: number): number
  /** pread(2) into the buffer. */
  read(target: Uint8Array, position: number): number
  close(): void
}

/** What KVM was told of, until close(). */
export interface NativeRegistration {
  /** -1 once closed. */
  readonly fd: number
  close(): void
}

export interface NativeKvm extends NativeDescriptor {
  createVm(type: number): NativeVm | number
}

/** Rows of the VM's table that changed, as lib/memory/memslot-words.ts tells; the regions are handles made for the caller. */
export interface NativeMemslots {
  generation: number
  rows: Float64Array
  regions: (NativeRegion | null)[]
}

export interface NativeVm extends NativeDescriptor {
  /** What changeMemslot() is asked and answers in: one record of lib/memory/memslot-words.ts, and behind it the result. */
  readonly memslotWords: SharedArrayBuffer
  /** KVM_SET_USER_MEMORY_REGION or its second form, if the slot is as the change was computed from, else -ESTALE (native/core/memslots.h). The VM holds
   * the region as long as the slot exists; none is the one that the slot has. */
  changeMemslot(region?: NativeRegion): void
  /** All while no vCPU is in the guest, or none. Answered in the records, a refusal in the first. EIO: the kernel did not take back what it had
   * taken before. */
  changeMemslots(records: Float64Array, regions: (NativeRegion | null)[]): number
  /** The number of the last change of the memslots, by anybody; -1 once closed. */
  readonly generation: number
  /** What changed after change `generation`. */
  memslotsSince(generation: number): NativeMemslots
  createGuestMemfd(argument: Uint8Array): NativeDescriptor | number
  /** KVM_GET_DIRTY_LOG of a slot as change `changed` left it, else -ESTALE; -EINVAL when the bitmap is smaller than the slot needs. */
  getDirtyLog(slot: number, changed: number, bitmap: Uint8Array): number
  /** KVM_CLEAR_DIRTY_LOG: protects again the pages whose bit is set; `first` is a multiple of 64, as `pages` unless they reach the slot's end. */
  clearDirtyLog(slot: number, changed: number, first: number, pages: number, bitmap: Uint8Array): number
  /** Rings of `bytes` for the vCPUs to come, by KVM_CAP_DIRTY_LOG_RING or its younger form. */
  enableDirtyRing(capability: number, bytes: number): number
  /** Pairs of slot and page that any vCPU dirtied since the last call; they are protected again when it returns. */
  harvestDirtyRings(): Float64Array | number
  /** KVM_IOEVENTFD, with a duplicate of the request's `fd`. Taken back by close(), and when this environment ends. */
  ioeventfd(request: Uint8Array): NativeRegistration | number
  /** KVM_REGISTER_COALESCED_MMIO: -EEXIST where it overlaps a range of any environment. Taken back when this one lets go of the VM. */
  coalesce(zone: Uint8Array): number
  /** The opposite; what waits is moved as by drainCoalesced(). */
  uncoalesce(zone: Uint8Array, target: Uint8Array): number
  /** Moves this environment's entries of the ring of coalesced writes into `target`; how many. */
  drainCoalesced(target: Uint8Array): number
  /** Bytes of a vCPU's shared pages: KVM_GET_VCPU_MMAP_SIZE. */
  readonly runPageSize: number
  createVcpu(id: number): NativeVcpu | number
  /** One that another environment created and holds. */
  findVcpu(id: number): NativeVcpu | number
  /** A token by which another environment of this process attaches the VM, once. */
  share(): bigint | number
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

export interface NativeVcpu extends NativeDescriptor {
  /** The number by which runVcpu() and ioctlVcpu() know it. Runs write to the area, of `exitAreaSize` at least, without another look at it: none
   * may begin once its buffer was transferred away. Negative errno once closed. */
  useArea(area: Uint8Array): number
  /** Whether some thread is in a run. */
  readonly running: boolean
  /** From any thread: the run in progress, or else the next one, returns -EINTR. */
  kick(): void
  /** After a run that gave -4096 (native/core/run.h, kMmioNotAwaited): its access is made in `ofMemory`, or handed on as a device's. */
  accessMade(ofMemory: boolean): void
  /** A thread of its own, which runs when told. `ranges` are isPort, start, size by turns: writes there are queued. `notify` is called in the
   * event loop when there is something to take. */
  startThread(number: number, ranges: (boolean | number)[], notify: () => void): NativeVcpuRunner | number
  /** Copies bytes of the shared run page: sync regs and the like. */
  readRunPage(offset: number, target: Uint8Array): number
  writeRunPage(offset: number, source: Uint8Array): number
}

/** A vCPU's own thread. */
export interface NativeVcpuRunner {
  /** Into the guest, with the answer in `area`; false when it is there already. */
  go(area: Uint8Array): boolean
  /** Ends the run of go() with -ECANCELED, unless it ends by itself before. */
  callBack(): void
  /** Whether there is something to take(); what is queued by then is older. */
  hasResult(): boolean
  /** The result of the last go(), as of runVcpu(), and the exit in `area`; null while there is none. */
  take(area: Uint8Array): number | null
  /** Queued writes, older than what take() gives next: native/core/vcpu_thread.h, QueuedWrite. */
  takeQueued(): Uint8Array
  /** Whether the thread keeps the event loop alive. */
  ref(): void
  unref(): void
  /** Ends the run in progress, and the thread. An exit that was not taken comes again with the vCPU's next run. */
  end(): void
}

/** The eventfds that one environment watches. */
export interface NativeWatcher {
  /** Watches a duplicate of `fd` under `key`. */
  add(key: number, fd: number): number
  remove(key: number): void
  /** Pairs of key and what its eventfd counted since the last call. */
  take(): Float64Array
  /** A socket, the caller's to close, on which a byte comes when there is something to take. */
  subscribe(): number
}

/** Pages of a region that this process wrote, one bit a page. */
export interface NativeWriteRecorder {
  /** Moves the bits into `target`, which has whole 64-bit words. */
  collect(target: Uint8Array): number
  /** Sets the bits of the pages from `first` to `last`. */
  mark(first: number, last: number): void
  close(): void
}

/** Without `fd` and `content` the faults are answered by serve(). */
export interface FaultServiceOptions {
  minor: boolean
  /** An open file, which is duplicated, and where in it the region's first byte lies. */
  fd?: number
  offset?: number
  /** Copied. */
  content?: Uint8Array
}

/** The page faults of a region, by userfaultfd. */
export interface NativeFaultService {
  /** Pairs of a page's offset and 1 for a write; each page once until it is served. */
  take(): Float64Array
  /** Puts `length` bytes there, whole pages: of `content`, or zeros. A page that is there already stays. */
  serve(offset: number, length: number, content: Uint8Array | null): number
  /** No access to this page succeeds any more. */
  fail(offset: number): number
  /** The pages of a range that are not there, as pairs of a run's offset and its length. */
  missing(offset: number, length: number): Float64Array
  /** Brings in what is missing from a source that a native thread reads: 0, or a negative errno. */
  makePresent(offset: number, length: number): number
  /** From now on every access to a page that is missing fails. */
  abandon(): void
  /** A socket, the caller's to close, on which a byte comes when there is something to take. */
  subscribe(): number
  /** Pages served so far. */
  served(): number
  /** What is missing still is ordinary memory from now on. */
  close(): void
}

export interface RegionOptions {
  kind: 'anonymous' | 'memfd' | 'hugetlb' | 'file'
  size: number
  /** anonymous: MAP_NORESERVE. */
  noReserve?: boolean
  /** hugetlb: bytes in a huge page. */
  hugePageSize?: number
  address?: number
  fixed?: boolean
  populate?: boolean
  /** madvise(2) of the whole, before it is populated. */
  advice?: number
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
  readonly kind: RegionOptions['kind']
  /** The same number for all regions of one file, or of one mapping, and the byte in it at which this region begins. */
  readonly memory: [id: number, offset: number]
  /** Slots of any VM that hold it. */
  readonly slots: number
  /** As write() and fill(): -EAGAIN where a page must first be served by serveFaults()' caller. */
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
  /** From now on. */
  recordWrites(): NativeWriteRecorder | number
  serveFaults(options: FaultServiceOptions): NativeFaultService | number
  release(): void
}

/** Why VMs cannot be read from outside: the step that was refused, and its negative errno. */
export interface TableFailure {
  step: 'map' | 'loader' | 'program' | 'room' | 'iterator' | 'walk' | 'fields'
  error: number
  /** A bit for each field the kernel lacks (native/observe/bpf/layout.h, field_bit). */
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

export interface NativeAddon {
  /** Loads the BPF program, once a process; null when it is loaded. */
  loadTables(): TableFailure | null
  readTables(request: TableRequest): NativeMachine[] | TableFailure
  /** Reads the host page tables (of a process by its folder /proc/PID, or none) of the slots at GPAs from `from` up to `to`, and puts all three tables side by side. A negative errno on failure. */
  joinTables(process: string | null, slots: SlotColumns, leaves: LeafColumns, from: number, to: number): PageColumns | number
  /** open(2); a negative errno on failure. */
  open(path: string, writable: boolean): NativeKvm | number
  /** The number of the signal that kicks; below 0 when no real-time signal was free. */
  kickSignal(): number
  /** In a Worker: from now on a run on this thread gives -ERESTART when its event loop has something to do. */
  watchLoop(): void
  /** The VM of a token of {@link NativeVm.share}: -ENOENT for none, -EBADF when it is closed. */
  attach(token: bigint): NativeVm | number
  map(options: RegionOptions): NativeRegion | number
  /** Makes the error where a call of the add-on runs out of memory or threads. */
  onExhausted(error: (what: 'memory' | 'threads') => Error): void
  /** Whether there is memory for the collector: it ends the process where it finds none. */
  mayCollect(): boolean
  /** Ends what objects hold that the collector has found to be lost, which their finalizers would do later; how many. */
  reclaim(): number
  /** eventfd(2), nonblocking. */
  eventfd(): NativeDescriptor | number
  watchEventfds(): NativeWatcher | number
  trace(request: TraceRequest): NativeTracer | number
  /** A mount of tracefs that is in no namespace: its files are reached below /proc/self/fd/N. */
  openTracefs(): NativeDescriptor | number
  /** For ./vcpu-calls.ts alone, as the next three. */
  runVcpu(): void
  completeVcpu(): void
  ioctlVcpu(argument?: number | Uint8Array): void
  readonly vcpuWords: SharedArrayBuffer
}

export const native = loadAddon() as NativeAddon
native.onExhausted((what) => exhaustion(what === 'memory' ? 'allocating memory' : 'making a thread', what === 'memory' ? 'ENOMEM' : what) as Error)
reclaimBy(native)
if (!isMainThread) native.watchLoop()
