/** The add-on, and the types of what it exports. Only the rooms abi, memory, kvm and observe import this. */
import { isMainThread } from 'node:worker_threads'
import { loadAddon } from './addon.js'
import type { LeafColumns, PageColumns, SlotColumns } from './columns.js'
import { exhaustion } from './errors.js'
import { reclaimBy } from './exhausted.js'

/** A file descriptor that this object owns. It closes at the latest when the object is collected. Results below 0 are negative errnos. */
export interface NativeDescriptor {
  /** The descriptor, or -1 after close(). */
  readonly fd: number
  /** Sends an ioctl. `argument` is absent, a number passed by value, or a buffer at least as large as the request number says. */
  ioctl(request: number, argument?: number | Uint8Array): number
  /** Sends a request whose structure is followed by an array; the array's length is at offset 0 (native/core/requests.h lists both kinds). */
  ioctlCounted(request: number, argument: Uint8Array): number
  /** Sends KVM_GET_STATS_FD to a VM or a vCPU. */
  openStatistics(): NativeDescriptor | number
  /** fallocate(2) of whole pages, which keeps the file's size. It allocates the pages, or frees them if `punch` is true. */
  allocate(punch: boolean, offset: number, length: number): number
  /** pread(2) into the buffer. */
  read(target: Uint8Array, position: number): number
  close(): void
}

/** Something that KVM was told of and that lasts until close(). */
export interface NativeRegistration {
  /** The descriptor, or -1 after close(). */
  readonly fd: number
  close(): void
}

export interface NativeKvm extends NativeDescriptor {
  createVm(type: number): NativeVm | number
}

/** The rows of the VM's table that changed (lib/memory/memslot-words.ts has the format). The regions are handles made for the caller. */
export interface NativeMemslots {
  generation: number
  rows: Float64Array
  regions: (NativeRegion | null)[]
}

export interface NativeVm extends NativeDescriptor {
  /** The words through which changeMemslot() gets its argument and returns its result: one record of lib/memory/memslot-words.ts, then the result. */
  readonly memslotWords: SharedArrayBuffer
  /** Sends KVM_SET_USER_MEMORY_REGION or its second form, if the slot is still as it was when the change was computed; else the result is -ESTALE
   * (native/core/memslots.h). The VM holds the region as long as the slot exists. Without a region the slot keeps its own. */
  changeMemslot(region?: NativeRegion): void
  /** Makes all changes or none, while no vCPU is in the guest. The results are in the records; a refusal is in the first. The result
   * -4098 (native/core/memslots.h, kNotUndone) means that the kernel refused to undo the changes it had already made. */
  changeMemslots(records: Float64Array, regions: (NativeRegion | null)[]): number
  /** The number of the last change of the memslots by any environment, or -1 after close(). */
  readonly generation: number
  /** Returns the changes after change `generation`. */
  memslotsSince(generation: number): NativeMemslots
  createGuestMemfd(argument: Uint8Array): NativeDescriptor | number
  /**
   * Sends KVM_GET_DIRTY_LOG if the slot is as change `changed` left it; else the result is -ESTALE. A bitmap smaller than the slot needs gives
   * -EINVAL.
   */
  getDirtyLog(slot: number, changed: number, bitmap: Uint8Array): number
  /**
   * Sends KVM_CLEAR_DIRTY_LOG, which protects again the pages whose bit is set. `first` is a multiple of 64, and so is `pages` unless they reach the
   * slot's end.
   */
  clearDirtyLog(slot: number, changed: number, first: number, pages: number, bitmap: Uint8Array): number
  /** Gives each later vCPU a ring of `bytes`, by KVM_CAP_DIRTY_LOG_RING or its newer form. */
  enableDirtyRing(capability: number, bytes: number): number
  /** Returns pairs of slot and page that any vCPU dirtied since the last call. The pages are protected again when it returns. */
  harvestDirtyRings(): Float64Array | number
  /** Sends KVM_IOEVENTFD with a duplicate of the request's `fd`. close() undoes it, and so does the end of this environment. */
  ioeventfd(request: Uint8Array): NativeRegistration | number
  /**
   * Sends KVM_REGISTER_COALESCED_MMIO; -EEXIST means that the range overlaps one of any environment. It is undone when this environment closes the
   * VM.
   */
  coalesce(zone: Uint8Array): number
  /** Undoes coalesce(). Entries that still wait are moved as by drainCoalesced(). */
  uncoalesce(zone: Uint8Array, target: Uint8Array): number
  /** Moves this environment's entries of the ring of coalesced writes into `target`, and returns how many. */
  drainCoalesced(target: Uint8Array): number
  /** The size of a vCPU's shared pages in bytes: KVM_GET_VCPU_MMAP_SIZE. */
  readonly runPageSize: number
  createVcpu(id: number): NativeVcpu | number
  /** Finds a vCPU that another environment created and holds. */
  findVcpu(id: number): NativeVcpu | number
  /** Returns a token with which another environment of this process attaches the VM, once. */
  share(): bigint | number
}

export interface TraceRequest {
  /**
   * `startOffset` and `endOffset` say where the raw data hold an HVA range; both are 0 for events without one. `filter` is in the kernel's filter
   * language, or empty.
   */
  events: { id: number; startOffset: number; endOffset: number; filter: string }[]
  /** The process ids; an empty list means every process. */
  processes: number[]
  /** Whether to trace also the processes that these fork. */
  children: boolean
  /** The bytes of each CPU's ring: a power of two, whole pages. */
  ringSize: number
  /** How many bytes are held until the next drain. Later records are lost, and counted. */
  heldLimit: number
}

/** The rings of tracepoints, one for each CPU, and the thread that empties them. */
export interface NativeTracer {
  /** Returns PERF_RECORD_SAMPLE records (TID, TIME, CPU, RAW), oldest first: one array for each CPU that had any. */
  drain(): Uint8Array[]
  lost(): number
  /** Sets the HVA ranges to trace, as pairs of start and end; null means everywhere. */
  setRanges(bounds: number[] | null): void
  /** Returns a socket, which the caller closes. A byte arrives on it when there is something to drain. */
  subscribe(): number
  close(): void
}

export interface NativeVcpu extends NativeDescriptor {
  /** Returns the number by which runVcpu() and ioctlVcpu() know the vCPU, or a negative errno after close(). Runs write to the area, which has at
   * least `exitAreaSize` bytes, without checking it again: after its buffer was transferred away, no run may begin. */
  useArea(area: Uint8Array): number
  /** Whether a thread is inside a run. */
  readonly running: boolean
  /** Makes the run in progress, or else the next one, return -EINTR. Any thread may call it. */
  kick(): void
  /** Completes a run that returned -4096 (native/core/run.h, kMmioNotAwaited): its access was made in memory, or goes on as a device's access. */
  accessMade(ofMemory: boolean): void
  /** Starts a thread for the vCPU, which runs it when told. `ranges` holds isPort, start and size in turn; writes to these ranges are queued.
   * `notify` is called in the event loop when there is something to take. */
  startThread(number: number, ranges: (boolean | number)[], notify: () => void): NativeVcpuRunner | number
  /** Copies bytes of the shared run page, such as the sync registers. */
  readRunPage(offset: number, target: Uint8Array): number
  writeRunPage(offset: number, source: Uint8Array): number
}

/** The thread of a vCPU. */
export interface NativeVcpuRunner {
  /** Enters the guest, with the answer in `area`. Returns false if the thread is already there. */
  go(area: Uint8Array): boolean
  /** Ends the run of go() with -ECANCELED, unless it ends by itself first. */
  callBack(): void
  /** Whether there is a result to take(). Writes queued by then are older than it. */
  hasResult(): boolean
  /** Returns the result of the last go(), as runVcpu() does, and puts the exit into `area`. Returns null while there is none. */
  take(area: Uint8Array): number | null
  /** Returns the queued writes, which are older than the next result of take(): native/core/vcpu_thread.h, QueuedWrite. */
  takeQueued(): Uint8Array
  /** Makes the thread keep the event loop alive. */
  ref(): void
  unref(): void
  /** Ends the run in progress, and the thread. An exit that nobody took comes again with the vCPU's next run. */
  end(): void
}

/** The eventfds that one environment watches. */
export interface NativeWatcher {
  /** Watches a duplicate of `fd` under `key`. */
  add(key: number, fd: number): number
  remove(key: number): void
  /** Returns pairs of a key and what its eventfd counted since the last call. */
  take(): Float64Array
  /** Returns a socket, which the caller closes. A byte arrives on it when there is something to take. */
  subscribe(): number
}

/** Records which pages of a region this process wrote, one bit per page. */
export interface NativeWriteRecorder {
  /** Moves the bits into `target`, whose length is a multiple of 64 bits. */
  collect(target: Uint8Array): number
  /** Sets the bits of the pages from `first` to `last`. */
  mark(first: number, last: number): void
  close(): void
}

/** How to answer page faults. Without `fd` and `content` serve() answers them. */
export interface FaultServiceOptions {
  minor: boolean
  /** An open file, which is duplicated; `offset` is where in the file the region begins. */
  fd?: number
  offset?: number
  /** The content, which is copied. */
  content?: Uint8Array
}

/** Serves the page faults of a region through userfaultfd. */
export interface NativeFaultService {
  /** Returns pairs of a page's offset and 1 for a write, else 0. Each page comes once until it is served. */
  take(): Float64Array
  /** Puts `length` bytes of whole pages there, from `content` or zeros. A page that is already there stays. */
  serve(offset: number, length: number, content: Uint8Array | null): number
  /** Makes every later access to this page fail. */
  fail(offset: number): number
  /** Returns the missing pages of a range, as pairs of offset and length of each run. */
  missing(offset: number, length: number): Float64Array
  /** Brings in the missing pages from a source that a native thread reads. Returns 0 or a negative errno. */
  makePresent(offset: number, length: number): number
  /** Makes every later access to a missing page fail. */
  abandon(): void
  /** Returns a socket, which the caller closes. A byte arrives on it when there is something to take. */
  subscribe(): number
  /** Returns how many pages were served so far. */
  served(): number
  /** Ends the service. Pages that are still missing become ordinary memory. */
  close(): void
}

export interface RegionOptions {
  kind: 'anonymous' | 'memfd' | 'hugetlb' | 'file'
  size: number
  /** For anonymous memory: MAP_NORESERVE. */
  noReserve?: boolean
  /** For hugetlb: the bytes in a huge page. */
  hugePageSize?: number
  address?: number
  fixed?: boolean
  populate?: boolean
  /** The advice for madvise(2) of the whole region, given before it is populated. */
  advice?: number
  /** For a file: its open descriptor, which the region duplicates; `offset` is where in the file the region begins. */
  fd?: number
  offset?: number
  /** For a file: MAP_SHARED instead of MAP_PRIVATE. */
  shared?: boolean
  readonly?: boolean
}

/** Host memory that is unmapped when no handle, slot or buffer holds it. Results below 0 are negative errnos. */
export interface NativeRegion {
  /** The HVA of the first byte, or 0 after release(). */
  readonly address: number
  readonly size: number
  readonly kind: RegionOptions['kind']
  /** An id that all regions of one file or one mapping share, and the offset at which this region begins there. */
  readonly memory: [id: number, offset: number]
  /** How many slots of any VM hold the region. */
  readonly slots: number
  /** Reads bytes. As with write() and fill(), -EAGAIN means that the caller of serveFaults() must serve a page first. */
  read(offset: number, target: Uint8Array): number
  write(offset: number, source: Uint8Array): number
  fill(offset: number, length: number, value: number): number
  remap(offset: number, length: number, content: Uint8Array | null): number
  advise(offset: number, length: number, advice: number): number
  punchHole(offset: number, length: number): number
  protect(offset: number, length: number, protection: number): number
  /** Returns this environment's one live buffer, or a negative errno if an access through it could fault. */
  buffer(): SharedArrayBuffer | ArrayBuffer | number
  /** Whether this environment's buffer is alive. */
  readonly buffered: boolean
  /** Records writes from now on. */
  recordWrites(): NativeWriteRecorder | number
  serveFaults(options: FaultServiceOptions): NativeFaultService | number
  release(): void
}

/** Why VMs cannot be read from outside: the step that failed, and its negative errno. */
export interface TableFailure {
  step: 'map' | 'loader' | 'program' | 'room' | 'iterator' | 'walk' | 'fields'
  error: number
  /** A bit for each field the kernel lacks (native/observe/bpf/layout.h, field_bit). */
  missingFields: number
  /** The output of the kernel's verifier. */
  log: string
}

/** What to read. Kernel addresses are bigints, 0n if unknown. */
export interface TableRequest {
  /** The process, or 0 for all. */
  pid: number
  /** The descriptor, or -1 for all. */
  fd: number
  /** Whether to read the second stage too. */
  tables: boolean
  pageOffsetBase: bigint
  mmioMaskAddress: bigint
  mmioValueAddress: bigint
  meMaskAddress: bigint
}

/** A VM as one descriptor shows it. */
export interface NativeMachine {
  /** A value that is different for each VM, and means nothing else. */
  kvm: bigint
  pid: number
  fd: number
  command: string
  vcpus: number
  /** 1: the slots map the process's memory. 2: another descriptor already described this VM. 4: TDP tables could not be found in memory. */
  flags: number
  addressSpaces: number
  failedReads: number
  /** How many tables had no room, or were freed while they were copied. */
  lost: number
  invalidationsBefore: number
  invalidationsAfter: number
  /** The generations of the memslots: before the walk for each address space, then after it. */
  generations: BigUint64Array
  setSwapped: number
  mmioMask: bigint
  slots: SlotColumns
  leaves: LeafColumns
}

export interface NativeAddon {
  /** Loads the BPF program, once per process. Returns null when it is loaded. */
  loadTables(): TableFailure | null
  readTables(request: TableRequest): NativeMachine[] | TableFailure
  /** Reads the host page tables of the slots at GPAs from `from` up to `to`, and puts all three tables side by side. The process is given by its
   * folder /proc/PID, or is null for none. Returns a negative errno on failure. */
  joinTables(process: string | null, slots: SlotColumns, leaves: LeafColumns, from: number, to: number): PageColumns | number
  /** Calls open(2). Returns a negative errno on failure. */
  open(path: string, writable: boolean): NativeKvm | number
  /** Returns the number of the signal that kicks use, or a negative number if no real-time signal was free. */
  kickSignal(): number
  /** In a Worker: from now on a run on this thread returns -ERESTART when its event loop has something to do. */
  watchLoop(): void
  /** Attaches the VM of a token that {@link NativeVm.share} returned: -ENOENT if there is none, -EBADF if it is closed. */
  attach(token: bigint): NativeVm | number
  map(options: RegionOptions): NativeRegion | number
  /** Sets the function that makes the error when a call of the add-on runs out of memory or threads. */
  onExhausted(error: (what: 'memory' | 'threads') => Error): void
  /** Whether there is enough memory for a garbage collection. V8 ends the process if it runs out of memory during one. */
  mayCollect(): boolean
  /** Closes what collected objects held, which their finalizers would do later, and returns how many. */
  reclaim(): number
  /** Makes a nonblocking eventfd(2). */
  eventfd(): NativeDescriptor | number
  watchEventfds(): NativeWatcher | number
  trace(request: TraceRequest): NativeTracer | number
  /** Mounts tracefs in no namespace. Its files are below /proc/self/fd/N. */
  openTracefs(): NativeDescriptor | number
  /** For ./vcpu-calls.ts only, as are the next three members. */
  runVcpu(): void
  completeVcpu(): void
  ioctlVcpu(argument?: number | Uint8Array): void
  readonly vcpuWords: SharedArrayBuffer
}

export const native = loadAddon() as NativeAddon
native.onExhausted((what) => exhaustion(what === 'memory' ? 'allocating memory' : 'making a thread', what === 'memory' ? 'ENOMEM' : what) as Error)
reclaimBy(native)
if (!isMainThread) native.watchLoop()
