/** Runs a vCPU on a thread of its own, while the event loop goes on. */
import { AsyncResource } from 'node:async_hooks'
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkList, checkOptions } from '../../abi/arguments.js'
import { errnoName } from '../../abi/errors.js'
import type { NativeVcpuRunner } from '../../abi/native.js'
import { MmioAccess, PortWrite } from './accesses.js'
import type { Exit, IoOutExit, MmioExit } from './exits.js'
import { knownReasons } from './rare-exits.js'
import type { Runs } from './runs.js'

/** The handler of one kind of exit: a function, or an object with a method `handle`. Its result is awaited before the guest goes on. */
export type ExitHandler<E extends Exit | MemoryError> = ((exit: E) => unknown) | ExitReceiver<E>
/** A device, or a bus of devices. */
export interface ExitReceiver<E extends Exit | MemoryError> {
  /** Handles one exit, as a handler function does. */
  handle(exit: E): unknown
}
/**
 * The guest touched memory that the host cannot give it: KVM_RUN failed with EFAULT or EHWPOISON. A handler makes the memory accessible, and then
 * the guest tries the access again. Without a handler the run rejects with the error `memory`.
 */
export interface MemoryError {
  reason: 'memory'
  /** `EFAULT`, or `EHWPOISON` for a page whose memory is broken. */
  errno: string
  /** The address, if the kernel tells it: since Linux 6.8, and not for every access. */
  gpa: Gpa | undefined
}
/** The handlers, by the reason of the exit. An exit without a handler ends the run. */
export type ExitHandlers = { [R in Exit['reason']]?: ExitHandler<Extract<Exit, { reason: R }>> } & { memory?: ExitHandler<MemoryError> }

/** A range of writes that need no answer: ports from `port` on, or guest-physical addresses from `gpa` on. */
export type QueuedRange = { port: number; size?: number } | { gpa: Gpa; size: number }

/** The options of {@link Vcpu.start}. */
export interface StartOptions {
  /** A signal that ends the run, which then rejects with the signal's reason. */
  signal?: AbortSignal
  /**
   * Writes to these ranges do not wait for their handler. The guest goes on, and the writes are delivered in batches, in order, and before any later
   * exit. The guest waits when a mebibyte of them is not handled yet.
   */
  queued?: readonly QueuedRange[]
}

/** How a run that start() began ended: by an exit without a handler, which may be answered before the next run, or by stop(). */
export type RunEnd = Exit | { reason: 'stopped' }
/** `running`: in the guest or in handlers. `parked`: pause() stopped it. `stopped`: before start() and after the run's end. */
export type VcpuState = 'running' | 'parked' | 'stopped'

/** QueuedWrite of native/core/vcpu_thread.h: u64 address, u32 count, u8 size, u8 port, u16, u32 length, u32; then the data, padded to 8 bytes. */
const queuedHead = 24

function* queuedExits(bytes: Uint8Array): Generator<IoOutExit | MmioExit> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at + 16, true)
    const data = bytes.subarray(at + queuedHead, at + queuedHead + length)
    const address = Number(view.getBigUint64(at, true))
    const size = view.getUint8(at + 12)
    if (view.getUint8(at + 13)) yield new PortWrite(address, size, view.getUint32(at + 8, true), data)
    else yield new MmioAccess(address, true, size, data)
    at += queuedHead + Math.ceil(length / 8) * 8
  }
}

const rangeWords = (ranges: readonly QueuedRange[]): (boolean | number)[] =>
  checkList('queued', ranges).flatMap((range) => {
    if (typeof range !== 'object' || range === null) throw argumentError('queued', range, 'objects with port or gpa, and size')
    if ('port' in range) {
      checkOptions('queued', range, ['port', 'size'])
      const { port, size = 1 } = range
      return [true, checkInteger('port', port, 0, 0xffff), checkInteger('size', size, 1, 0x1_0000)]
    }
    checkOptions('queued', range, ['gpa', 'size'])
    return [false, checkAddress('gpa', range.gpa), checkInteger('size', range.size, 1)]
  })

const handled: readonly (Exit['reason'] | 'memory')[] = [...knownReasons, 'memory']

type Handler = (exit: Exit | MemoryError) => unknown

/** Takes each handler as it is now. Later changes of the caller's object have no effect. */
function handlersIn(given: ExitHandlers): Map<string, Handler> {
  const handlers = new Map<string, Handler>()
  checkOptions('handlers', given, handled)
  for (const reason of handled) {
    const handler = given[reason] as ExitHandler<Exit | MemoryError> | undefined
    if (handler === undefined) continue
    if (typeof handler === 'function') handlers.set(reason, handler)
    else if (typeof handler?.handle === 'function') handlers.set(reason, (exit) => handler.handle(exit))
    else throw argumentError(`handlers['${reason}']`, handler, "a function, or an object with a method 'handle'")
  }
  return handlers
}

const isPromise = (value: unknown): value is PromiseLike<unknown> => typeof (value as PromiseLike<unknown> | undefined)?.then === 'function'

/** @internal One start() of a vCPU, to its end. Everything here happens in the event loop; the thread itself only runs when told. */
export class VcpuThread {
  /** A promise that settles when the run is over. */
  readonly ended: Promise<RunEnd>
  readonly #runs: Runs
  readonly #handlers: ReadonlyMap<string, Handler>
  readonly #runner: NativeVcpuRunner
  readonly #signal: AbortSignal | undefined
  readonly #queues: boolean
  #wanted: VcpuState = 'running'
  // Whether the thread was told to go, and its exit, with what the guest did before it, was not yet taken and delivered.
  #inGuest = false
  // The error that a handler of queued writes threw. The run ends with it after the guest's earlier writes are delivered.
  #failure: { error: unknown } | undefined
  #over = false
  #waiting: (() => void)[] = []
  #resolve!: (end: RunEnd) => void
  #reject!: (reason: unknown) => void
  readonly #onAbort = () => this.stop()

  constructor(
    id: number,
    runs: Runs,
    handlers: ExitHandlers,
    { signal, queued = [] }: StartOptions,
    native: { startThread(number: number, ranges: (boolean | number)[], notify: () => void): NativeVcpuRunner | number }
  ) {
    this.#handlers = handlersIn(handlers)
    signal?.throwIfAborted()
    // Binds to the async context of start(). A thread-safe function keeps that context for itself only before Node 24.
    const arrived = AsyncResource.bind(() => this.#arrived(), 'KvmVcpuThread')
    // The list is read once, since a second read could give another one.
    const ranges = rangeWords(queued)
    const runner = native.startThread(id, ranges, arrived)
    if (typeof runner === 'number') throw runs.failure(runner)
    this.#runs = runs
    this.#runner = runner
    this.#signal = signal
    this.#queues = ranges.length > 0
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    signal?.addEventListener('abort', this.#onAbort, { once: true })
    this.#proceed()
  }

  get state(): VcpuState {
    if (this.#over) return 'stopped'
    return this.#wanted === 'parked' && !this.#inGuest ? 'parked' : 'running'
  }

  /** Resolves when the guest is out, or the run is over. */
  async pause(): Promise<void> {
    if (this.#wanted === 'running') this.#wanted = 'parked'
    await this.#leave()
  }
  resume(): void {
    this.#wanted = 'running'
    for (const go of this.#waiting.splice(0)) go()
  }
  /** Stops the run. What a handler in progress has put into its exit by now is the answer with which a later run goes on. */
  stop(): void {
    this.#wanted = 'stopped'
    if (this.#inGuest) this.#runner.callBack()
    else this.#proceed()
  }
  ref(): void {
    this.#runner.ref()
  }
  unref(): void {
    this.#runner.unref()
  }
  /** Ends the run at once, without the answers that handlers still owe, because the VM is closed. */
  end(): void {
    if (!this.#over) this.#finish(() => this.#resolve({ reason: 'stopped' }))
  }

  #left: (() => void)[] = []
  #leave(): Promise<void> {
    if (!this.#inGuest || this.#over) return Promise.resolve()
    this.#runner.callBack()
    return new Promise((resolve) => this.#left.push(resolve))
  }

  #finish(settle: () => void): void {
    if (this.#over) return
    this.#over = true
    this.#inGuest = false
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.#runner.end()
    for (const left of this.#left.splice(0)) left()
    for (const go of this.#waiting.splice(0)) go()
    settle()
  }

  #end(end: RunEnd): void {
    this.#finish(() => {
      if (this.#failure) this.#reject(this.#failure.error)
      else if (this.#signal?.aborted && end.reason === 'stopped') this.#reject(this.#signal.reason)
      else this.#resolve(end)
    })
  }

  // The run ends with the first error. The guest may still be running, and its writes until it leaves are delivered as after stop().
  #fail(error: unknown): void {
    this.#failure ??= { error }
    this.stop()
  }

  /** Lets the guest go on, or does what else was asked for. */
  #proceed(): void {
    if (this.#over) return
    if (this.#wanted === 'stopped') this.#end({ reason: 'stopped' })
    else if (this.#wanted === 'parked') this.#waiting.push(() => this.#proceed())
    else {
      this.#inGuest = true
      this.#runner.go(this.#runs.area())
    }
  }

  #arrived(): void {
    if (this.#over) return
    const isOut = this.#inGuest && this.#runner.hasResult()
    if (this.#queues) this.#deliverQueued()
    if (!isOut || this.#over) return
    if (this.#failure === undefined) this.#handle(this.#runner.take(this.#runs.area()) as number)
    else {
      // The next run begins with this exit.
      this.#out()
      this.#proceed()
    }
  }

  #out(): void {
    this.#inGuest = false
    for (const left of this.#left.splice(0)) left()
  }

  // The writes that KVM had coalesced by then come first, as they may be older. The guest does not repeat them. So each is delivered even if the
  // handler of another one throws, until one of the handlers closes the vCPU.
  #deliverQueued(): void {
    const queued = this.#runner.takeQueued()
    if (queued.length > 0) this.#runs.drain()
    for (const exit of queuedExits(queued)) {
      if (this.#over) return
      try {
        const answer = this.#call(exit)
        if (isPromise(answer)) Promise.resolve(answer).catch((error: unknown) => this.#fail(error))
      } catch (error) {
        this.#fail(error)
      }
    }
  }

  #call(exit: Exit | MemoryError): unknown {
    return this.#handlers.get(exit.reason)?.(exit)
  }

  #handle(result: number): void {
    try {
      const exit = this.#tell(result)
      this.#out()
      if (this.#over) return
      if (exit === undefined) this.#proceed()
      else if (!this.#handlers.has(exit.reason)) this.#end(exit as Exit)
      else this.#goOnAfter(this.#call(exit))
    } catch (error) {
      this.#out()
      this.#fail(error)
    }
  }

  // What the guest did before the exit is delivered first. The exit is read before that, since a handler may run other vCPUs.
  #tell(result: number): Exit | MemoryError | undefined {
    try {
      return this.#exitOf(result)
    } finally {
      this.#runs.drain()
    }
  }

  /** Returns undefined if there is nothing to report: pause() or stop() called the vCPU back, or somebody who does not listen kicked it. */
  #exitOf(result: number): Exit | MemoryError | undefined {
    if (result >= 0) return this.#withMemory(this.#runs.read(result))
    const errno = errnoName(result)
    if (errno === 'ECANCELED') return undefined
    if (errno === 'EINTR') return this.#handlers.has('interrupted') ? { reason: 'interrupted' } : undefined
    if (this.#handlers.has('memory') && (errno === 'EFAULT' || errno === 'EHWPOISON')) return { reason: 'memory', errno, gpa: undefined }
    throw this.#runs.failure(result)
  }

  // KVM_EXIT_MEMORY_FAULT is the same failure, reported by a kernel that knows the address (api.rst 5).
  #withMemory(exit: Exit): Exit | MemoryError {
    if (exit.reason !== 'memory-fault' || this.#handlers.has('memory-fault') || !this.#handlers.has('memory')) return exit
    return { reason: 'memory', errno: 'EFAULT', gpa: exit.gpa }
  }

  #goOnAfter(answer: unknown): void {
    if (!isPromise(answer)) this.#proceed()
    else
      Promise.resolve(answer).then(
        () => this.#proceed(),
        (error: unknown) => this.#fail(error)
      )
  }
}
