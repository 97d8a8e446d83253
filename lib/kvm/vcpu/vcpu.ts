/** A virtual processor. */
import { inspect } from 'node:util'
import { takeEach } from '../../abi/errors.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { VcpuHandle } from '../../abi/ioctls.js'
import type { NativeVcpu } from '../../abi/native.js'
import type { CpuidEntry } from '../../x86/cpuid.js'
import { makeStatistics, type Statistics } from '../statistics.js'
import { makeCpuid, prepareCpuid, type VcpuCpuid } from './cpuid.js'
import { makeDebug, type VcpuDebug } from './debug.js'
import { dropEvents, makeEvents, type VcpuEvents } from './events.js'
import { ExitReader } from './exit-reader.js'
import type { Exit } from './exits.js'
import type { VcpuHost } from './host.js'
import { makeLapic, type VcpuLapic } from './lapic.js'
import { enterMode, type Mode, type ModeOptions } from './modes.js'
import { makeMsrs, type VcpuMsrs } from './msrs.js'
import { makeRegisters, type VcpuRegisters } from './registers.js'
import { limitOf, type RunOptions, Runs, type VcpuParts } from './runs.js'
import { setSignalMask } from './signal-mask.js'
import { Started } from './started.js'
import { makeSyncRegisters, type SyncRegisters } from './sync-registers.js'
import type { ExitHandlers, RunEnd, StartOptions, VcpuState } from './thread.js'

/** @internal */
export let makeVcpu: (parts: VcpuParts) => Vcpu

/**
 * A vCPU. {@link Vm.createVcpu} makes it. The thread that calls run() runs it, or a thread of its own does after start().
 * @example
 * using vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
 * const exit = vcpu.run({ timeoutMs: 1000 })
 * if (exit.reason === 'io-out') console.log(exit.port, exit.data)
 */
export class Vcpu implements Disposable {
  /** The vCPU's number, which is its APIC id. */
  readonly id: number
  /** The VM that the vCPU belongs to. */
  readonly vm: VcpuHost
  readonly registers: VcpuRegisters
  readonly cpuid: VcpuCpuid
  readonly msrs: VcpuMsrs
  readonly events: VcpuEvents
  readonly lapic: VcpuLapic
  readonly debug: VcpuDebug
  /** The registers shared through the run page instead of read by ioctl (KVM_CAP_SYNC_REGS). */
  readonly syncRegisters: SyncRegisters
  /** The counters of this vCPU: KVM_GET_STATS_FD. */
  readonly stats: Statistics
  readonly #native: NativeVcpu
  readonly #handle: VcpuHandle
  readonly #runs: Runs
  readonly #started: Started

  static {
    makeVcpu = (parts) => new Vcpu(ours, parts)
  }

  private constructor(key: symbol, parts: VcpuParts) {
    checkOurs(key, 'a Vcpu', 'createVcpu() or vcpu() of a Vm')
    const exits = new ExitReader()
    const handle = new VcpuHandle(parts.native, parts.id, parts.native.useArea(exits.area))
    this.#native = parts.native
    this.#handle = handle
    this.#runs = new Runs(parts, handle, exits)
    this.#started = new Started(parts.id, parts.native, handle, this.#runs)
    this.id = parts.id
    this.vm = parts.vm
    this.registers = makeRegisters(handle)
    this.cpuid = makeCpuid(handle)
    this.msrs = makeMsrs(handle)
    this.events = makeEvents(handle, this.#runs)
    this.lapic = makeLapic(handle)
    this.debug = makeDebug(handle)
    this.syncRegisters = makeSyncRegisters(parts.native, handle, parts.runPageSize)
    this.stats = makeStatistics(parts.native, handle)
  }

  /** Whether close() was called. Every other call then throws `closed`. */
  get closed(): boolean {
    return this.#handle.closed
  }

  /**
   * Runs the guest on this thread until an exit: KVM_RUN (api.rst 4.10). Signals that do not concern the guest do not end the run. The exit's object
   * and its `data` belong to the vCPU and are valid until the next run(). In a Worker, worker.terminate() ends the run.
   * @throws KvmError `memory` if the host memory behind a slot cannot be accessed; `busy` if another thread runs this vCPU; `state` if the vCPU has a
   * thread of its own, or if a handler of coalesced writes runs it while the run() that called the handler has not returned its exit yet
   */
  run(options?: RunOptions): Exit {
    const timeoutMs = options === undefined ? -1 : limitOf(options)
    if (!this.#started.isIdle) this.#started.checkStopped('run()')
    return this.#runs.run(timeoutMs)
  }

  /**
   * Completes the exit that run() or start() gave, with its answer, and lets the guest go no further. Its registers and memory are then those between
   * two instructions, or between two rounds of a string instruction, and can be read or saved. Completing may cause another exit, which is returned:
   * the write after a device's read, or the rest of an access. Answer it and finish it in turn. If nothing is pending, the call does nothing.
   * @throws KvmError as run() does
   * @example
   * for (let exit = vcpu.finishExit(); exit; exit = vcpu.finishExit()) answer(exit)
   * const registers = vcpu.registers.get()
   */
  finishExit(): Exit | undefined {
    this.#handle.checkOpen()
    this.#started.checkStopped('finishExit()')
    return this.#runs.finishExit()
  }

  /**
   * Runs the guest on a thread of its own, and calls a handler on this thread for each exit. The guest waits for the handler, and for the promise
   * that it may return. The exit's object is valid until then. An exit without a handler ends the run, and the returned promise resolves to that
   * exit. If a handler throws, the promise rejects with its error. In both cases the vCPU is then stopped, and can be started again where it was.
   * @throws KvmError `state` if it is already started, `busy` if another thread runs it, `argument`
   * @example
   * const vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })
   * const end = await vcpu.start({ 'io-out': ({ port, data }) => console.log(port, data) })
   * if (end.reason === 'hlt') console.log('halted')
   */
  start(handlers: ExitHandlers, options: StartOptions = {}): Promise<RunEnd> {
    return this.#started.begin(handlers, options)
  }

  /** The state that start(), pause(), resume() and stop() gave the vCPU. A run() in progress on another thread does not show here. */
  get state(): VcpuState {
    return this.#started.state
  }

  /** Resolves when the guest is out. Handlers in progress go on, and the guest waits for resume(). @throws KvmError `state` if it is stopped */
  pause(): Promise<void> {
    return this.#started.pause()
  }
  /** Lets the guest go on after pause(). @throws KvmError `state` if it is not parked */
  resume(): void {
    this.#started.resume()
  }
  /** Ends the run that start() began with `{ reason: 'stopped' }`, and resolves when it is over. It does nothing if the vCPU is stopped. */
  stop(): Promise<void> {
    return this.#started.stop()
  }
  /** Makes a started vCPU keep the process alive, which is the default. */
  ref(): this {
    this.#started.ref()
    return this
  }
  /** Lets the process end although the vCPU is started. */
  unref(): this {
    this.#started.unref()
    return this
  }

  /** Ends the run in progress on any thread, or else the next one, with `{ reason: 'interrupted' }`. */
  kick(): void {
    this.#handle.checkOpen()
    this.#native.kick()
  }

  /**
   * Sets the signals that are blocked while this vCPU is in KVM_RUN, instead of the thread's own mask: KVM_SET_SIGNAL_MASK (api.rst 4.17). The signal
   * that kick() and time limits use is never blocked.
   * @param blocked numbers of signals (signal(7))
   */
  setSignalMask(blocked: Iterable<number>): void {
    setSignalMask(this.#handle, blocked)
  }

  /**
   * Puts the vCPU into a processor mode, ready to run at `ip`, whatever it did before. Control registers, segments and descriptor tables are as after
   * power-on, except for what the mode needs. Events that wait to be delivered are dropped, and so is an exit that stop() left for the next run.
   * Other registers keep their values. If the vCPU has no CPUID, it gets one that has long mode and little else. Returns the vCPU.
   * @throws KvmError `argument`; `no-memslot` if no memslot covers the tables of long mode; `state` if its CPUID lacks long mode
   */
  enter<M extends Mode>(mode: M, options: ModeOptions[M]): this {
    this.#handle.checkOpen()
    const settle = () => {
      this.#runs.complete('enter()')
      dropEvents(this.events)
    }
    const prepare = (entries: readonly CpuidEntry[]) => prepareCpuid(this.cpuid, entries, mode === 'long')
    enterMode({ settle, prepareCpuid: prepare, registers: this.registers, memory: this.vm.memory }, mode, options)
    return this
  }

  /** Ends what start() began, and closes the descriptor. A second call does nothing. */
  close(): void {
    takeEach([() => this.#started.end(), () => this.stats.close(), () => this.#native.close()])
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('Vcpu', { id: this.id, state: this.state })
  }
}
