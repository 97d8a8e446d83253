/** Keeps whether a vCPU has a thread of its own, and decides which calls are allowed then. */
import { checkOptions, checkSignal } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import type { NativeVcpu } from '../../abi/native.js'
import type { Runs } from './runs.js'
import { type ExitHandlers, type RunEnd, type StartOptions, type VcpuState, VcpuThread } from './thread.js'

/** @internal The state that start(), pause(), resume() and stop() give a vCPU. */
export class Started {
  readonly #id: number
  readonly #native: NativeVcpu
  readonly #handle: VcpuHandle
  readonly #runs: Runs
  #thread: VcpuThread | undefined

  constructor(id: number, native: NativeVcpu, handle: VcpuHandle, runs: Runs) {
    this.#id = id
    this.#native = native
    this.#handle = handle
    this.#runs = runs
  }

  begin(handlers: ExitHandlers, options: StartOptions): Promise<RunEnd> {
    this.#handle.checkOpen()
    this.checkStopped('start()')
    const { signal } = checkOptions('options', options, ['signal', 'queued'])
    if (signal !== undefined) checkSignal('signal', signal)
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (this.#native.running) throw new KvmError('busy', `${this.#handle.name} runs on another thread`)
    this.#thread = new VcpuThread(this.#id, this.#runs, handlers, options, this.#native)
    return this.#thread.ended
  }

  get state(): VcpuState {
    return this.#thread?.state ?? 'stopped'
  }
  /** Whether the caller may use run(). If not, {@link checkStopped} throws the reason. */
  get isIdle(): boolean {
    return this.#thread === undefined && !this.#runs.handingOn
  }

  checkStopped(asked: string): void {
    if (this.#runs.handingOn)
      throw this.#illegal(asked, 'running', 'its run() called this handler and has not returned its exit yet; run it after that')
    if (this.state !== 'stopped') throw this.#illegal(asked, this.state, 'it has a thread of its own; call stop() first')
  }
  #running(asked: string): VcpuThread {
    this.#handle.checkOpen()
    if (this.#thread === undefined || this.state === 'stopped') throw this.#illegal(asked, 'stopped', 'call start() first')
    return this.#thread
  }
  #illegal(asked: string, state: VcpuState, advice: string): KvmError {
    return new KvmError('state', `${asked} of ${this.#handle.name}, which is ${state}: ${advice}`, { state })
  }

  async pause(): Promise<void> {
    await this.#running('pause()').pause()
  }
  resume(): void {
    const thread = this.#running('resume()')
    if (thread.state !== 'parked') throw this.#illegal('resume()', thread.state, 'only pause() parks it')
    thread.resume()
  }
  async stop(): Promise<void> {
    const thread = this.#thread
    thread?.stop()
    await thread?.ended.catch(() => {})
  }
  ref(): void {
    this.#thread?.ref()
  }
  unref(): void {
    this.#thread?.unref()
  }
  /** Ends the thread at once, without the answers that handlers still owe. */
  end(): void {
    this.#thread?.end()
  }
}
