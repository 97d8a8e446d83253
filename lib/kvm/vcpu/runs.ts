/** Runs a vCPU on the thread that calls run(), and keeps what the last run left to do. */
import { constants } from 'node:os'
import { argumentError, checkOptions } from '../../abi/arguments.js'
import { errnoName, ioctlError, KvmError } from '../../abi/errors.js'
import { kvm_run } from '../../abi/generated/structures.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import type { NativeVcpu } from '../../abi/native.js'
import { completeVcpu, mmioNotAwaited, runVcpu } from '../../abi/vcpu-calls.js'
import { serveNow } from '../../memory/demand-paging.js'
import { ExitReader } from './exit-reader.js'
import type { Exit } from './exits.js'
import type { VcpuHost, WriteQueues } from './host.js'

// A run returns this when somebody waits for pages that this thread serves (native/core/run.h); mmioNotAwaited is the same with an MMIO exit.
const waitsForThisThread = -constants.errno.EDEADLK
const waits = (result: number) => result === waitsForThisThread || result === mmioNotAwaited
const timeoutExit: Exit = Object.freeze({ reason: 'timeout' })
const interruptedExit: Exit = Object.freeze({ reason: 'interrupted' })

/** The options of {@link Vcpu.run}. */
export interface RunOptions {
  /** The time in milliseconds after which run() returns `{ reason: 'timeout' }`. There is no limit if it is absent. */
  timeoutMs?: number
}

/** @internal Returns the limit in milliseconds, or -1 for none. */
export function limitOf(options: RunOptions): number {
  const timeoutMs = options?.timeoutMs
  // Object.keys() would make an array for each run.
  let isKnown = timeoutMs !== undefined
  for (const name in options) isKnown &&= name === 'timeoutMs'
  if (!isKnown) checkOptions('options', options, ['timeoutMs'])
  if (timeoutMs === undefined) return -1
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0) || timeoutMs > 2 ** 31)
    throw argumentError('timeoutMs', timeoutMs, 'milliseconds from 0 to 2147483648')
  return timeoutMs
}

/** @internal The parts that a VM hands to its vCPUs. */
export interface VcpuParts {
  native: NativeVcpu
  id: number
  vm: VcpuHost
  runPageSize: number
  queues: WriteQueues
}

/** @internal The runs of one vCPU. */
export class Runs {
  readonly #native: NativeVcpu
  readonly #handle: VcpuHandle
  readonly #vm: VcpuHost
  readonly #queues: WriteQueues
  #exits: ExitReader
  /** Whether run() is calling the handlers of writes that came before its exit. Nobody has seen or answered that exit yet. */
  handingOn = false

  constructor({ native, vm, queues }: VcpuParts, handle: VcpuHandle, exits: ExitReader) {
    this.#native = native
    this.#handle = handle
    this.#vm = vm
    this.#queues = queues
    this.#exits = exits
  }

  /** @param timeoutMs a negative number means no limit */
  run(timeoutMs: number): Exit {
    return this.#queues.writes === undefined ? this.#exit(timeoutMs) : this.#afterWrites(() => this.#exit(timeoutMs))
  }

  #exit(timeoutMs: number): Exit {
    const result = this.#enter(timeoutMs)
    return result >= 0 ? this.#exits.read(result) : this.#interruption(result, timeoutMs)
  }

  #enter(timeoutMs: number): number {
    if (this.#exits.lost) this.#takeArea()
    return runVcpu(this.#handle.number, timeoutMs)
  }

  // Makes a new area if the caller transferred exit.data.buffer away, because the next exits need memory of their own.
  #takeArea(): void {
    this.#exits = new ExitReader()
    // The number stays the same.
    this.#native.useArea(this.#exits.area)
  }

  /** Returns the memory to which runs on a thread of their own copy the exit. */
  area(): Uint8Array {
    if (this.#exits.lost) this.#takeArea()
    return this.#exits.area
  }
  /** Reads the exit of such a run. */
  read(result: number): Exit {
    return this.#exits.read(result)
  }
  /** Delivers the writes that KVM queued before the exit. */
  drain(): void {
    this.#queues.writes?.drain()
  }

  // The writes that KVM queued are older than the exit. The exit is read before their handlers run, because these may run other vCPUs (not this one).
  #afterWrites<E extends Exit | undefined>(exit: () => E): E {
    try {
      return exit()
    } finally {
      this.#handOn(() => this.drain())
    }
  }

  // Calls handlers before an exit of this vCPU is returned, or before its run goes on.
  #handOn<T>(handlers: () => T): T {
    this.handingOn = true
    try {
      return handlers()
    } finally {
      this.handingOn = false
    }
  }

  #interruption(result: number, timeoutMs: number): Exit {
    const errno = errnoName(result)
    if (waits(result)) return this.#afterWrites(() => this.#serveAndRun(result, timeoutMs))
    if (errno === 'ETIME') return timeoutExit
    if (errno === 'EINTR') return interruptedExit
    throw this.failure(result, timeoutMs)
  }

  /** Makes the error for a negative result of a run. */
  failure(result: number, timeoutMs = -1): KvmError {
    const { name, closed } = this.#handle
    const errno = errnoName(result)
    const details = { errno, ioctl: 'KVM_RUN' }
    if (closed || errno === 'EBADF') return new KvmError('closed', `${name} is closed`)
    if (errno === 'EBUSY') return new KvmError('busy', `${name} runs on another thread`)
    if (errno === 'EFAULT' || errno === 'EHWPOISON')
      return new KvmError(
        'memory',
        `${name}: KVM_RUN failed with ${errno}: the host memory behind a memslot is unmapped, protected, or past the end of its file`,
        details
      )
    // This errno does not come from KVM_RUN, but from the timer that the limit needs.
    if (errno === 'EAGAIN' && timeoutMs >= 0)
      return new KvmError(
        'limit',
        `${name}: running it for at most ${timeoutMs} ms: ${errno}; there is no timer for the limit: this user's timers and pending signals are used up (ulimit -i)`,
        { errno }
      )
    return ioctlError('KVM_RUN', result, `${name}: running it`, this.#cause(errno))
  }

  #cause(errno: string): string {
    return errno === 'ENOSPC' && this.#vm.memslots.length === 0 ? 'the VM has no memslots, and KVM sizes its shadow page pool by them' : ''
  }

  // Somebody waits for a page that only this thread can serve, perhaps this very vCPU, and then perhaps for another one. The time limit counts from
  // the first run.
  #serveAndRun(first: number, timeoutMs: number): Exit {
    const end = performance.now() + timeoutMs
    for (let result = first; ; ) {
      this.#handOn(() => this.drain())
      if (!this.#handOn(serveNow)) throw this.#notServed('run()')
      const exit = result === mmioNotAwaited ? this.#handOn(() => this.#accessNow()) : undefined
      if (exit) return exit
      result = this.#enter(timeoutMs < 0 ? -1 : Math.max(0, end - performance.now()))
      if (result >= 0) return this.#exits.read(result)
      if (!waits(result)) return this.#interruption(result, timeoutMs)
    }
  }

  #notServed(by: string): KvmError {
    return new KvmError(
      'not-present',
      `${this.#handle.name} stopped: it waits for a page whose handler answers only from the event loop of this thread, which ${by} blocks; run the vCPU on another thread, or serve the page from a file`
    )
  }

  // Makes the access of an instruction that KVM emulates and that could not wait for its page. If the access is to a device, the exit is passed on.
  #accessNow(): Exit | undefined {
    const exit = this.#exits.readMmio()
    const slot = this.#vm.memslots.lookup(exit.gpa)
    const ofMemory = slot !== undefined && !(slot.readonly && exit.isWrite)
    if (ofMemory && exit.isWrite) this.#vm.memory.write(exit.gpa, exit.data)
    else if (ofMemory) exit.data.set(this.#vm.memory.read(exit.gpa, exit.size))
    // Not reached if the access could not be made. The next run then begins with it.
    this.#native.accessMade(ofMemory)
    return ofMemory ? undefined : exit
  }

  /**
   * Finishes the access that the last exit left half done, with its answer, and lets the guest go no further. Returns undefined, or another exit that
   * results from it.
   * @param asker the caller's name for errors: `enter()`
   */
  finish(asker: string): Exit | undefined {
    for (;;) {
      if (this.#exits.lost) this.#takeArea()
      const result = completeVcpu(this.#handle.number)
      if (result > 0) return this.#exits.read(result)
      if (result === 0) return undefined
      if (!waits(result)) throw this.failure(result)
      if (!this.#handOn(serveNow)) throw this.#notServed(asker)
      const exit = result === mmioNotAwaited ? this.#handOn(() => this.#accessNow()) : undefined
      if (exit) return exit
    }
  }

  /** Does what finish() does, for a caller of the library, but first delivers the writes that KVM queued before the exit. */
  finishExit(): Exit | undefined {
    return this.#queues.writes === undefined ? this.finish('finishExit()') : this.#afterWrites(() => this.finish('finishExit()'))
  }

  /**
   * Finishes everything, with no answers. Otherwise the next run would complete it in the new mode, and write the registers and RIP of the old one
   * (api.rst 5).
   */
  complete(asker: string): void {
    while (this.finish(asker) !== undefined);
  }

  get readyForInterrupt(): boolean {
    return this.#exits.area[kvm_run.offsets.ready_for_interrupt_injection] !== 0
  }
  requestInterruptWindow(wanted: boolean): void {
    this.#handle.checkOpen()
    this.#native.writeRunPage(kvm_run.offsets.request_interrupt_window, new Uint8Array([wanted ? 1 : 0]))
  }
}
