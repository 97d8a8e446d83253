/** A virtual processor. */
import { constants } from 'node:os'
import { argumentError, checkBoolean, checkOptions } from '../../abi/arguments.js'
import { errnoName, ioctlError, KvmError, takeEach } from '../../abi/errors.js'
import { fixParent, ours } from '../../abi/internal.js'
import type { NativeVcpu } from '../../abi/native.js'
import type { CpuidEntry } from '../../abi/structures.js'
import { completeVcpu, runVcpu } from '../../abi/vcpu-calls.js'
import { serveNow } from '../../memory/demand-paging.js'
import { type Statistics, statisticsOf } from '../statistics.js'
import type { Coalescing } from '../vm/coalesced.js'
import type { Vm } from '../vm/vm.js'
import { type Exit, ExitReader } from './exits.js'
import { enterMode, hasLongMode, type Mode, type ModeOptions } from './modes.js'
import { checkOpen, cpuidOf, dropEvents, VcpuRegisters } from './registers.js'
import { makeSyncRegisters, type SyncRegisters } from './sync-registers.js'
import { type ExitHandlers, illegal, type RunEnd, type StartOptions, type VcpuState, VcpuThread } from './thread.js'

/** Of {@link Vcpu.run}. */
export interface RunOptions {
  /** Milliseconds after which run() comes back with `{ reason: 'timeout' }`; none if absent. */
  timeoutMs?: number
}

// What runVcpu() gives when pages are waited for that this thread serves (native/core/run.h): the second with an MMIO exit.
const waitsForThisThread = -constants.errno.EDEADLK
const mmioNotAwaited = -4096
// struct kvm_run, before the union.
const requestWindowOffset = 0
const readyForInterruptOffset = 12
const timeoutExit: Exit = Object.freeze({ reason: 'timeout' })
const interruptedExit: Exit = Object.freeze({ reason: 'interrupted' })

/** @internal what a VM hands to its vCPUs */
export interface VcpuParts {
  native: NativeVcpu
  id: number
  vm: Vm
  runPageSize: number
  /** What run() looks at after each exit: the VM's coalesced writes, once there are any. */
  queues: { writes: Coalescing | undefined }
}
/** @internal */
export let makeVcpu: (parts: VcpuParts) => Vcpu

/**
 * A vCPU. Made by {@link Vm.createVcpu}; run by the thread that calls run().
 * @example
 * using vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
 * const exit = vcpu.run({ timeoutMs: 1000 })
 * if (exit.reason === 'io-out') console.log(exit.port, exit.data)
 */
export class Vcpu extends VcpuRegisters implements Disposable {
  readonly vm: Vm
  /** Registers shared through the run page instead of by ioctl (KVM_CAP_SYNC_REGS). */
  readonly syncRegisters: SyncRegisters
  readonly #native: NativeVcpu
  // By which runVcpu() knows it.
  readonly #number: number
  readonly #queues: VcpuParts['queues']
  #exits: ExitReader
  #statistics: Statistics | undefined
  #thread: VcpuThread | undefined
  // Whether run() calls the handlers of what came before its exit: nobody has seen that yet, nor answered it.
  #handingOn = false

  static {
    fixParent(Vcpu)
    makeVcpu = (parts) => {
      const exits = new ExitReader()
      return new Vcpu(ours, parts, exits, parts.native.useArea(exits.area))
    }
  }

  private constructor(key: symbol, parts: VcpuParts, exits: ExitReader, number: number) {
    super(key, parts?.native, parts?.id, number)
    const { native, vm, runPageSize, queues } = parts
    this.vm = vm
    this.syncRegisters = makeSyncRegisters(native, runPageSize)
    this.#native = native
    this.#number = number
    this.#queues = queues
    this.#exits = exits
  }

  /**
   * Runs the guest on this thread until an exit: KVM_RUN (api.rst 4.10). Signals that have nothing to do with the guest do not end it.
   * The exit's object, and its `data`, belong to the vCPU: they hold until the next run(). In a Worker, worker.terminate() ends it.
   * @throws KvmError `memory` when the host memory behind a slot cannot be accessed, `busy` when another thread runs this vCPU, `state` when it
   * has a thread of its own, or when a handler that a run() of it called, of coalesced writes, runs it before that run() has told its exit
   */
  run(options?: RunOptions): Exit {
    const timeoutMs = options === undefined ? -1 : this.#limit(options)
    if (this.#thread !== undefined || this.#handingOn) this.#stoppedFor('run()')
    return this.#queues.writes === undefined ? this.#exit(timeoutMs) : this.#afterWrites(() => this.#exit(timeoutMs))
  }

  #exit(timeoutMs: number): Exit {
    const result = this.#enter(timeoutMs)
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
    checkOpen(this)
    this.#stoppedFor('start()')
    checkOptions('options', options, ['signal', 'queued'])
    if (options.signal?.aborted) return Promise.reject(options.signal.reason)
    if (this.#native.running) throw new KvmError('busy', `vCPU ${this.id} runs on another thread`)
    const thread = new VcpuThread(
      {
        id: this.id,
        area: () => this.#currentArea(),
        read: (result) => this.#read(result),
        drain: () => this.#queues.writes?.drain(),
        failure: (result) => this.#failure(result, -1)
      },
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
    if (this.#handingOn)
      throw illegal(asked, this.id, 'running', 'a run() of it called this handler, and has not told its exit yet; run it after that')
    if (this.state !== 'stopped') throw illegal(asked, this.id, this.state, 'it has a thread of its own; stop() it first')
  }
  #startedFor(asked: string): VcpuThread {
    checkOpen(this)
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

  #enter(timeoutMs: number): number {
    if (this.#exits.lost) this.#takeArea()
    return runVcpu(this.#number, timeoutMs)
  }

  // The writes that KVM queued are older than the exit. It is read before their handlers run, who may run other vCPUs, but not this one.
  #afterWrites(exit: () => Exit): Exit {
    try {
      return exit()
    } finally {
      this.#handOn(() => this.#queues.writes?.drain())
    }
  }

  // Calls handlers before an exit of this vCPU is told, or its run goes on.
  #handOn<T>(handlers: () => T): T {
    this.#handingOn = true
    try {
      return handlers()
    } finally {
      this.#handingOn = false
    }
  }

  // Of a thread of its own.
  #read(result: number): Exit {
    this.#exits.recall()
    return this.#exits.read(result)
  }

  #limit(options: RunOptions): number {
    const timeoutMs = options?.timeoutMs
    if (timeoutMs === undefined) {
      checkOptions('options', options, ['timeoutMs'])
      return -1
    }
    if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0) || timeoutMs > 2 ** 31)
      throw argumentError('timeoutMs', timeoutMs, 'milliseconds from 0 to 2147483648')
    return timeoutMs
  }

  // Another one when the caller transferred exit.data.buffer away: the next exits need memory of their own.
  #takeArea(): void {
    this.#exits = new ExitReader()
    // The number stays.
    this.#native.useArea(this.#exits.area)
  }
  #currentArea(): Uint8Array {
    if (this.#exits.lost) this.#takeArea()
    return this.#exits.area
  }

  #interruption(result: number, timeoutMs: number): Exit {
    const errno = errnoName(result)
    if (result === waitsForThisThread || result === mmioNotAwaited) return this.#afterWrites(() => this.#serveAndRun(result, timeoutMs))
    if (errno === 'ETIME') return timeoutExit
    if (errno === 'EINTR') return interruptedExit
    checkOpen(this)
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

  // Somebody waits for a page that only this thread can serve, perhaps this very vCPU, and for one after the other. The time limit counts
  // from the first.
  #serveAndRun(first: number, timeoutMs: number): Exit {
    const end = performance.now() + timeoutMs
    for (let result = first; ; ) {
      this.#handOn(() => this.#queues.writes?.drain())
      if (!this.#handOn(serveNow)) throw this.#notServed('run()')
      const exit = result === mmioNotAwaited ? this.#handOn(() => this.#accessNow()) : undefined
      if (exit) return exit
      result = this.#enter(timeoutMs < 0 ? -1 : Math.max(0, end - performance.now()))
      if (result >= 0) return this.#exits.read(result)
      if (result !== waitsForThisThread && result !== mmioNotAwaited) return this.#interruption(result, timeoutMs)
    }
  }

  #notServed(by: string): KvmError {
    return new KvmError(
      'not-present',
      `vCPU ${this.id} stopped: a page is waited for whose handler answers only from the event loop of this thread, which ${by} holds up; run the vCPU on another thread, or serve the page from a file`
    )
  }

  // The access of an instruction that KVM emulates, and that could not wait for its page. An exit that is a device's is handed on.
  #accessNow(): Exit | undefined {
    const exit = this.#exits.readCopiedMmio()
    const slot = this.vm.memslots.lookup(exit.gpa)
    const ofMemory = slot !== undefined && !(slot.readonly && exit.isWrite)
    if (ofMemory && exit.isWrite) this.vm.write(exit.gpa, exit.data)
    else if (ofMemory) exit.data.set(this.vm.read(exit.gpa, exit.length))
    // Not if it could not be made: the next run begins with it then.
    this.#native.accessMade(ofMemory)
    return ofMemory ? undefined : exit
  }

  /** Ends the run in progress on whatever thread, or else the next one, with `{ reason: 'interrupted' }`. */
  kick(): void {
    checkOpen(this)
    this.#native.kick()
  }

  /** Whether the last exit left the guest able to take an interrupt(); else ask for an exit when it is, by {@link requestInterruptWindow}. */
  get readyForInterrupt(): boolean {
    return this.#exits.area[readyForInterruptOffset] !== 0
  }
  /** Asks run() to come back with `irq-window-open` once the guest takes interrupts, until set to false. */
  requestInterruptWindow(wanted: boolean): void {
    checkOpen(this)
    this.#native.writeRunPage(requestWindowOffset, new Uint8Array([checkBoolean('wanted', wanted) ? 1 : 0]))
  }

  /**
   * Puts the vCPU into a processor mode, ready to run at `ip`, whatever it did before: control registers, segments and descriptor tables are as
   * after power-on but for what the mode needs, and what waited to be delivered is gone, as is an exit that stop() left for the next run.
   * Other registers are kept. A vCPU without CPUID gets one that has long mode, and little else. Returns the vCPU.
   * @throws KvmError `argument`; `no-memslot` where the tables of long mode would lie; `state` when CPUID has no long mode
   */
  enter<M extends Mode>(mode: M, options: ModeOptions[M]): this {
    checkOpen(this)
    enterMode(
      {
        settle: () => {
          this.#complete()
          dropEvents(this)
        },
        prepareCpuid: (entries) => this.#prepareCpuid(entries, mode),
        getSpecialRegisters: () => this.getSpecialRegisters(),
        setSpecialRegisters: (values) => this.setSpecialRegisters(values),
        setRegisters: (values) => this.setRegisters(values),
        memory: this.vm
      },
      mode,
      options
    )
    return this
  }

  // What waits for an answer: the next run would complete it in the new mode, and write the registers and RIP of the old one (api.rst 5). Of a
  // string instruction there may be many.
  #complete(): void {
    for (let rest = completeVcpu(this.#number); rest !== 0; rest = completeVcpu(this.#number)) {
      const waits = rest === waitsForThisThread || rest === mmioNotAwaited
      if (waits ? !serveNow() : rest < 0) throw waits ? this.#notServed('enter()') : this.#failure(rest, -1)
    }
  }

  #prepareCpuid(entries: CpuidEntry[], mode: Mode): void {
    const known = cpuidOf(this)
    if (known.length > 0) {
      if (mode === 'long' && !known.some(hasLongMode))
        throw new KvmError(
          'state',
          `vCPU ${this.id} has a CPUID without long mode (function 0x80000001, bit 29 of EDX); setCpuid() with it, before the first run`
        )
      return
    }
    try {
      this.setCpuid(entries)
    } catch (error) {
      // From Linux 5.16 on the kernel takes none after the first run.
      if ((error as KvmError).errno !== 'EINVAL') throw error
      if (mode === 'long')
        throw new KvmError(
          'state',
          `vCPU ${this.id} ran without a CPUID, and the kernel takes none any more; setCpuid(), or enter(), before the first run`
        )
    }
  }

  /** Counters of this vCPU: KVM_GET_STATS_FD. */
  get stats(): Statistics {
    checkOpen(this)
    return (this.#statistics ??= statisticsOf(this.#native))
  }

  /** Ends what start() began, and closes the descriptor; a second call does nothing. */
  close(): void {
    takeEach([() => this.#thread?.end(), () => this.#statistics?.close(), () => this.#native.close()])
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}
