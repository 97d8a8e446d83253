/** A virtual processor. */
import { isMainThread } from 'node:worker_threads'
import { argumentError, checkBoolean, checkBytes, checkInteger, checkOptions } from '../abi/arguments.js'
import { checked, errnoName, ioctlError, KvmError } from '../abi/errors.js'
import { type NativeVcpu, native, type VcpuHandle } from '../abi/native.js'
import * as requests from '../abi/requests.js'
import type { Fields, StructInstance, StructType, ValuesOf } from '../abi/struct.js'
import {
  CpuidEntry,
  DebugRegisters,
  Fpu,
  GuestDebug,
  Interrupt,
  LapicState,
  MpState,
  MsrEntry,
  Registers,
  SpecialRegisters,
  Translation
} from '../abi/structures.js'
import { serveNow } from '../memory/demand-paging.js'
import { type Exit, ExitReader, exitAreaSize } from './exits.js'
import { enterMode, type Mode, type ModeOptions } from './modes.js'
import { Statistics } from './statistics.js'
import { SyncRegisters } from './sync-registers.js'
import { type ExitHandlers, illegal, type RunEnd, type StartOptions, type VcpuState, VcpuThread } from './vcpu-thread.js'
import type { Vm } from './vm.js'

/** Of {@link Vcpu.run}. */
export interface RunOptions {
  /** Milliseconds after which run() comes back with `{ reason: 'timeout' }`; none if absent. */
  timeoutMs?: number
}

const { runVcpu, ioctlVcpu } = native
const restart = -85
// struct kvm_run, before the union.
const requestWindowOffset = 0
const readyForInterruptOffset = 12
const timeoutExit: Exit = Object.freeze({ reason: 'timeout' })
const interruptedExit: Exit = Object.freeze({ reason: 'interrupted' })

/**
 * A vCPU. Made by {@link Vm.createVcpu}; run by the thread that calls run().
 * @example
 * using vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
 * const exit = vcpu.run({ timeoutMs: 1000 })
 * if (exit.reason === 'io-out') console.log(exit.port, exit.data)
 */
export class Vcpu implements Disposable {
  readonly id: number
  readonly vm: Vm
  /** Registers shared through the run page instead of by ioctl (KVM_CAP_SYNC_REGS). */
  readonly syncRegisters: SyncRegisters
  readonly #native: NativeVcpu
  readonly #handle: VcpuHandle
  #area = new Uint8Array(exitAreaSize)
  #exits = new ExitReader(this.#area)
  #statistics: Statistics | undefined
  #hasCpuid = false
  #thread: VcpuThread | undefined

  /** @internal */
  constructor(vcpu: NativeVcpu, id: number, vm: Vm, runPageSize: number) {
    this.#native = vcpu
    this.#handle = vcpu.handle()
    this.id = id
    this.vm = vm
    this.syncRegisters = new SyncRegisters(vcpu, runPageSize)
  }

  /** Whether close() was called. Any other use then throws `closed`. */
  get closed(): boolean {
    return this.#native.fd < 0
  }

  #open(): void {
    if (this.closed) throw new KvmError('closed', `vCPU ${this.id} is closed`)
  }

  /**
   * Runs the guest on this thread until an exit: KVM_RUN (api.rst 4.10). Signals that have nothing to do with the guest do not end it.
   * The exit's object, and its `data`, belong to the vCPU: they hold until the next run(). In a Worker, worker.terminate() ends it.
   * @throws KvmError `memory` when the host memory behind a slot cannot be accessed, `busy` when another thread runs this vCPU
   */
  run(options?: RunOptions): Exit {
    const timeoutMs = options === undefined ? -1 : this.#limit(options)
    if (this.#thread !== undefined) this.#stoppedFor('run()')
    const result = isMainThread ? runVcpu(this.#handle, this.#currentArea(), timeoutMs) : this.#runInWorker(timeoutMs)
    if (this.vm.coalescing !== undefined) this.vm.coalescing.drain()
    return result >= 0 ? this.#exits.read(result) : this.#interruption(result, timeoutMs)
  }

  /**
   * Runs the guest on a thread of its own, and calls a handler of this thread for each exit; the guest waits for it, and for the promise it may
   * return. The exit's object holds until then. An exit without a handler ends the run and is what the promise gives; it rejects
   * with what a handler throws. Either way the vCPU is then stopped, and can be started again where it was.
   * @throws KvmError `state` when it is started, `busy` when another thread runs it, `argument`
   * @example
   * const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
   * const end = await vcpu.start({ 'io-out': ({ port, data }) => console.log(port, data) })
   * if (end.reason === 'hlt') console.log('halted')
   */
  start(handlers: ExitHandlers, options: StartOptions = {}): Promise<RunEnd> {
    this.#open()
    this.#stoppedFor('start()')
    checkOptions('options', options, ['signal', 'queued'])
    if (options.signal?.aborted) return Promise.reject(options.signal.reason)
    if (this.#native.running) throw new KvmError('busy', `vCPU ${this.id} runs on another thread`)
    const thread = new VcpuThread(
      { id: this.id, area: () => this.#currentArea(), read: (result) => this.#read(result), failure: (result) => this.#failure(result, -1) },
      handlers,
      options,
      this.#native
    )
    this.#thread = thread
    return thread.ended
  }

  /** What start(), pause(), resume() and stop() made of it. A run() in progress on another thread does not show here. */
  get state(): VcpuState {
    return this.#thread?.state ?? 'stopped'
  }

  #stoppedFor(asked: string): void {
    if (this.state !== 'stopped') throw illegal(asked, this.id, this.state, 'it has a thread of its own; stop() it first')
  }
  #startedFor(asked: string): VcpuThread {
    this.#open()
    if (this.#thread === undefined || this.state === 'stopped') throw illegal(asked, this.id, 'stopped', 'start() it first')
    return this.#thread
  }

  /** Resolves when the guest is out; handlers in progress go on, and the guest waits for resume(). @throws KvmError `state` when stopped */
  async pause(): Promise<void> {
    await this.#startedFor('pause()').pause()
  }
  /** On into the guest after pause(). @throws KvmError `state` when not parked */
  resume(): void {
    const thread = this.#startedFor('resume()')
    if (thread.state !== 'parked') throw illegal('resume()', this.id, thread.state, 'only pause() parks it')
    thread.resume()
  }
  /** Ends the run that start() began, with `{ reason: 'stopped' }`, and resolves when it is over. Does nothing when stopped. */
  async stop(): Promise<void> {
    const thread = this.#thread
    thread?.stop()
    await thread?.ended.catch(() => {})
  }
  /** Whether a started vCPU keeps the process alive, as it does at first. */
  ref(): this {
    this.#thread?.ref()
    return this
  }
  /** The opposite of ref(). */
  unref(): this {
    this.#thread?.unref()
    return this
  }

  // -ERESTART: the event loop has something to do, which may be worker.terminate(). That takes effect here, in JavaScript; anything else can wait.
  #runInWorker(timeoutMs: number): number {
    const end = timeoutMs < 0 ? 0 : performance.now() + timeoutMs
    let result = runVcpu(this.#handle, this.#currentArea(), timeoutMs)
    while (result === restart) result = runVcpu(this.#handle, this.#currentArea(), timeoutMs < 0 ? -1 : Math.max(0, end - performance.now()))
    return result
  }

  // The writes that KVM queued are older than the exit.
  #read(result: number): Exit {
    this.vm.coalescing?.drain()
    return this.#exits.read(result)
  }

  #limit(options: RunOptions): number {
    const { timeoutMs } = options
    if (timeoutMs === undefined) {
      checkOptions('options', options, ['timeoutMs'])
      return -1
    }
    if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0) || timeoutMs > 2 ** 31)
      throw argumentError('timeoutMs', timeoutMs, 'milliseconds from 0 to 2147483648')
    return timeoutMs
  }

  // When the caller transferred exit.data.buffer away, the next exits need memory of their own.
  #currentArea(): Uint8Array {
    if (this.#area.byteLength === 0) {
      this.#area = new Uint8Array(exitAreaSize)
      this.#exits = new ExitReader(this.#area)
    }
    return this.#area
  }

  #interruption(result: number, timeoutMs: number): Exit {
    const errno = errnoName(result)
    // A page that only this thread can serve.
    if (errno === 'EDEADLK' && serveNow()) return this.run(timeoutMs < 0 ? undefined : { timeoutMs })
    if (errno === 'EDEADLK')
      throw new KvmError(
        'not-present',
        `vCPU ${this.id} waits for a page whose handler answers only from the event loop of this thread: run it on another thread, or serve the page from a file`
      )
    if (errno === 'ETIME') return timeoutExit
    if (errno === 'EINTR') return interruptedExit
    this.#open()
    throw this.#failure(result, timeoutMs)
  }

  #failure(result: number, timeoutMs: number): KvmError {
    const errno = errnoName(result)
    if (this.closed) return new KvmError('closed', `vCPU ${this.id} is closed`)
    if (errno === 'EBUSY') return new KvmError('busy', `vCPU ${this.id} runs on another thread`)
    if (errno === 'EFAULT' || errno === 'EHWPOISON')
      return new KvmError(
        'memory',
        `running vCPU ${this.id}: KVM_RUN failed with ${errno}: the host memory behind a memslot is unmapped, protected, or past the end of its file`,
        { errno, ioctl: 'KVM_RUN' }
      )
    const advice =
      errno === 'EAGAIN'
        ? "there is no timer for the limit: this user's timers and pending signals are used up (ulimit -i)"
        : errno === 'ENOSPC' && this.vm.memslots.length === 0
          ? 'the VM has no memslots, and KVM sizes its shadow page pool by them'
          : ''
    return ioctlError('KVM_RUN', result, `running vCPU ${this.id}${timeoutMs < 0 ? '' : ` for at most ${timeoutMs} ms`}`, advice)
  }

  /** Ends the run in progress on whatever thread, or else the next one, with `{ reason: 'interrupted' }`. */
  kick(): void {
    this.#open()
    this.#native.kick()
  }

  /**
   * Which signals are blocked while this vCPU is in KVM_RUN, in place of the thread's own mask: KVM_SET_SIGNAL_MASK (api.rst 4.17). The signal
   * by which kick() and time limits work stays open, whatever is asked.
   * @param blocked numbers of signal(7)
   */
  setSignalMask(blocked: Iterable<number>): void {
    this.#open()
    let set = 0n
    for (const signal of blocked) set |= 1n << BigInt(checkInteger('blocked', signal, 1, 64) - 1)
    const mask = new DataView(new ArrayBuffer(12))
    mask.setUint32(0, 8, true)
    mask.setBigUint64(4, set & ~(1n << BigInt(native.kickSignal() - 1)), true)
    const result = this.#native.ioctlCounted(requests.KVM_SET_SIGNAL_MASK.number, new Uint8Array(mask.buffer), 4, 1)
    if (result < 0) this.#refused(result, requests.KVM_SET_SIGNAL_MASK, 'setting the signal mask of')
  }

  #get<F extends Fields>(request: requests.Request, type: StructType<F>, value = new type()): StructInstance<F> {
    if (value?.constructor !== type) throw argumentError('into', typeof value, `an instance for ${type.structName}`)
    const result = ioctlVcpu(this.#handle, request.number, value.bytes)
    if (result < 0) this.#refused(result, request, 'reading')
    return value
  }

  #set<F extends Fields>(request: requests.Request, type: StructType<F>, values: Partial<ValuesOf<F>>, current?: () => StructInstance<F>): void {
    if (typeof values !== 'object' || values === null) throw argumentError('values', typeof values, `the fields of ${type.structName}`)
    let whole = values as StructInstance<F>
    if (values.constructor !== type) {
      checkOptions<object>('values', values, Object.keys(type.fields) as never[])
      whole = current ? current() : new type()
      assignFields(whole, values)
    }
    const result = ioctlVcpu(this.#handle, request.number, whole.bytes)
    if (result < 0) this.#refused(result, request, 'writing', 'a field holds a value that this processor does not allow')
  }

  // Asked only after a failure: on the way there each call into the add-on would cost as much as the check is worth.
  #refused(result: number, request: requests.Request, doing: string, advice = ''): never {
    this.#open()
    if (errnoName(result) === 'EBUSY')
      throw new KvmError('busy', `${doing} vCPU ${this.id} while it runs would wait for the guest; await pause(), or kick() it out, first`, {
        ioctl: request.name
      })
    throw ioctlError(request.name, result, `${doing} vCPU ${this.id}`, advice)
  }

  /**
   * General-purpose registers, RIP and RFLAGS, as bigints: KVM_GET_REGS.
   * @param into a Registers to fill again instead of a new one, for loops
   */
  getRegisters(into?: Registers): Registers {
    return this.#get(requests.KVM_GET_REGS, Registers, into)
  }
  /** Writes registers: those of a getRegisters() whole, or some by name and the others kept. */
  setRegisters(values: Partial<ValuesOf<typeof Registers.fields>>): void {
    this.#set(requests.KVM_SET_REGS, Registers, values, () => this.getRegisters())
  }
  /** Segments, descriptor tables and control registers: KVM_GET_SREGS. */
  getSpecialRegisters(into?: SpecialRegisters): SpecialRegisters {
    return this.#get(requests.KVM_GET_SREGS, SpecialRegisters, into)
  }
  /** Writes segments and control registers: those of a getSpecialRegisters() whole, or some by name (KVM_SET_SREGS).
   * @throws KvmError `ioctl` with EINVAL for a state no processor allows */
  setSpecialRegisters(values: Partial<ValuesOf<typeof SpecialRegisters.fields>>): void {
    this.#set(requests.KVM_SET_SREGS, SpecialRegisters, values, () => this.getSpecialRegisters())
  }
  /** x87 and SSE state: KVM_GET_FPU. */
  getFpu() {
    return this.#get(requests.KVM_GET_FPU, Fpu)
  }
  /** Writes x87 and SSE state, some fields or all: KVM_SET_FPU. */
  setFpu(values: Partial<ValuesOf<typeof Fpu.fields>>): void {
    this.#set(requests.KVM_SET_FPU, Fpu, values, () => this.getFpu())
  }
  /** DR0 to DR3, DR6 and DR7: KVM_GET_DEBUGREGS. */
  getDebugRegisters() {
    return this.#get(requests.KVM_GET_DEBUGREGS, DebugRegisters)
  }
  /** Writes debug registers, some fields or all: KVM_SET_DEBUGREGS. */
  setDebugRegisters(values: Partial<ValuesOf<typeof DebugRegisters.fields>>): void {
    this.#set(requests.KVM_SET_DEBUGREGS, DebugRegisters, values, () => this.getDebugRegisters())
  }
  /** 0 runnable, 3 halted, ...: KVM_GET_MP_STATE. */
  get mpState(): number {
    return this.#get(requests.KVM_GET_MP_STATE, MpState).mp_state
  }
  /** Wakes or halts the vCPU: KVM_SET_MP_STATE. */
  set mpState(state: number) {
    this.#set(requests.KVM_SET_MP_STATE, MpState, { mp_state: state })
  }
  /** Single steps and breakpoints: KVM_SET_GUEST_DEBUG. */
  setGuestDebug(values: Partial<ValuesOf<typeof GuestDebug.fields>>): void {
    this.#set(requests.KVM_SET_GUEST_DEBUG, GuestDebug, values)
  }
  /** The guest's own page tables: guest-virtual to guest-physical (KVM_TRANSLATE). */
  translateLinear(linear: bigint) {
    if (typeof linear !== 'bigint') throw argumentError('linear', linear, 'a bigint')
    this.#open()
    const value = new Translation({ linear_address: linear })
    const result = this.#native.ioctl(requests.KVM_TRANSLATE.number, value.bytes)
    if (result < 0) this.#refused(result, requests.KVM_TRANSLATE, 'translating on')
    return value
  }

  /** What the guest's CPUID answers: KVM_SET_CPUID2. */
  setCpuid(entries: readonly CpuidEntry[]): void {
    this.#counted(requests.KVM_SET_CPUID2, entries, CpuidEntry.size)
    this.#hasCpuid = true
  }
  /** Reads model-specific registers: KVM_GET_MSRS. */
  getMsrs(indices: readonly number[]): bigint[] {
    const memory = this.#counted(
      requests.KVM_GET_MSRS,
      indices.map((index) => new MsrEntry({ index })),
      MsrEntry.size,
      indices.length
    )
    return indices.map((_, place) => MsrEntry.over(memory.subarray(8 + place * MsrEntry.size)).data)
  }
  /** Writes model-specific registers: KVM_SET_MSRS. */
  setMsrs(values: ReadonlyMap<number, bigint>): void {
    this.#counted(
      requests.KVM_SET_MSRS,
      [...values].map(([index, data]) => new MsrEntry({ index, data })),
      MsrEntry.size,
      values.size
    )
  }

  // KVM_GET_MSRS and KVM_SET_MSRS return how many they did: fewer means that the next one was refused.
  #counted(request: requests.Request, entries: readonly { bytes: Uint8Array }[], entrySize: number, wanted = 0): Uint8Array {
    this.#open()
    const memory = new Uint8Array(8 + entries.length * entrySize)
    new DataView(memory.buffer).setUint32(0, entries.length, true)
    entries.forEach((entry, place) => memory.set(checkBytes('entries', entry.bytes), 8 + place * entrySize))
    const done = this.#native.ioctlCounted(request.number, memory, 8, entrySize)
    if (done < 0) this.#refused(done, request, 'with a list for')
    if (done < wanted)
      throw new KvmError('ioctl', `${request.name} stopped at entry ${done} of ${wanted}: this vCPU does not have that register`, {
        ioctl: request.name,
        done
      })
    return memory
  }

  /**
   * Delivers an external interrupt: KVM_INTERRUPT. For a VM without createIrqchip(), when {@link readyForInterrupt}.
   * @param vector 0 to 255
   */
  interrupt(vector: number): void {
    const { bytes } = new Interrupt({ irq: checkInteger('vector', vector, 0, 255) })
    const result = ioctlVcpu(this.#handle, requests.KVM_INTERRUPT.number, bytes)
    if (result < 0)
      this.#refused(result, requests.KVM_INTERRUPT, 'interrupting', 'EEXIST: one waits already; ENXIO: the controllers are in the kernel')
  }
  /** Whether the last exit left the guest able to take an interrupt(); else ask for an exit when it is, by {@link requestInterruptWindow}. */
  get readyForInterrupt(): boolean {
    return this.#area[readyForInterruptOffset] !== 0
  }
  /** Asks run() to come back with `irq-window-open` once the guest takes interrupts, until set to false. */
  requestInterruptWindow(wanted: boolean): void {
    this.#open()
    this.#native.writeRunPage(requestWindowOffset, new Uint8Array([checkBoolean('wanted', wanted) ? 1 : 0]))
  }
  /** Delivers a non-maskable interrupt: KVM_NMI. */
  nmi(): void {
    this.#open()
    checked(this.#native.ioctl(requests.KVM_NMI.number), requests.KVM_NMI.name, `interrupting vCPU ${this.id}`)
  }
  /** The local APIC's registers, 1024 bytes as they lie in its page: KVM_GET_LAPIC. Needs createIrqchip(). */
  getLapic(): Uint8Array {
    return this.#get(requests.KVM_GET_LAPIC, LapicState).regs
  }
  /** Writes the local APIC's registers: KVM_SET_LAPIC. */
  setLapic(regs: Uint8Array): void {
    if (checkBytes('regs', regs).byteLength !== LapicState.size) throw argumentError('regs', regs.byteLength, `${LapicState.size} bytes`)
    this.#set(requests.KVM_SET_LAPIC, LapicState, { regs })
  }

  /** Puts the vCPU into a processor mode, ready to run at `ip`. Returns the vCPU. */
  enter<M extends Mode>(mode: M, options: ModeOptions[M]): this {
    this.#open()
    enterMode(
      {
        getSpecialRegisters: () => this.getSpecialRegisters(),
        setSpecialRegisters: (values) => this.setSpecialRegisters(values),
        setRegisters: (values) => this.setRegisters(values),
        defaultCpuid: (entries) => {
          if (!this.#hasCpuid) this.setCpuid(entries)
        },
        memory: this.vm
      },
      mode,
      options
    )
    return this
  }

  /** Counters of this vCPU: KVM_GET_STATS_FD. */
  get stats(): Statistics {
    this.#open()
    return (this.#statistics ??= Statistics.of(this.#native))
  }

  /** Ends what start() began, and closes the descriptor; a second call does nothing. */
  close(): void {
    this.#thread?.end()
    this.#statistics?.close()
    this.#native.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}

/** Nested structures take plain objects too, so that one field of a segment can be set. */
function assignFields(target: object, values: object): void {
  try {
    Object.assign(target, values)
  } catch (error) {
    throw new KvmError('argument', `a register value has the wrong type: ${(error as Error).message} (registers are bigints)`, { argument: 'values' })
  }
}
