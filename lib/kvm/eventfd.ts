/**
 * eventfds in the event loop. KVM signals them from within KVM_RUN; one native thread for each environment waits for them all (epoll),
 * adds up what they count and rings a bell (native/core/doorbell.h says why so, and not by libuv). The libuv thread pool has no part in it, and a
 * guest that signals faster than JavaScript listens makes one event with a larger count, not a queue.
 */
import { AsyncResource } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import { writeSync } from 'node:fs'
import { Doorbell } from '../abi/doorbell.js'
import { limitError, throwLater } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { checkOurs } from '../abi/internal.js'
import { type NativeDescriptor, type NativeWatcher, native } from '../abi/native.js'

/** @internal an eventfd of ours, to hand to KVM. */
export function createEventfd(): NativeDescriptor {
  const made = making(() => native.eventfd())
  if (typeof made === 'number') throw limitError('an eventfd', made)
  return made
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

/** @internal adds one to its count: a count that is full already says the same. */
export function signalEventfd({ fd }: NativeDescriptor): void {
  try {
    writeSync(fd, one)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
  }
}

// This environment's thread and its bell, from the first listener on; and who listens. Those that keep the process alive are kept themselves;
// of the others somebody has the source or its VM, or it goes.
let watcher: NativeWatcher | undefined
let bell: Doorbell
const listening = new Map<number, WeakRef<Eventfd>>()
const referenced = new Set<Eventfd>()
let nextKey = 0

function forget(key: number): void {
  watcher?.remove(key)
  listening.delete(key)
}
const lost = new FinalizationRegistry(forget)

function deliver(): void {
  const counts = watcher!.take()
  for (let at = 0; at < counts.length; at += 2)
    try {
      const source = listening.get(counts[at]!)?.deref()
      if (source) hear(source, counts[at + 1]!)
    } catch (error) {
      // The others were taken too, and must hear of it.
      throwLater(error)
    }
}

function theWatcher(): NativeWatcher {
  if (watcher) return watcher
  const made = making(() => native.watchEventfds())
  if (typeof made === 'number') throw limitError('a thread that watches eventfds', made)
  bell = new Doorbell(made.subscribe(), deliver)
  bell.unref()
  return (watcher = made)
}

/** An async iterator over counts: what came since its last step, and how to wake it. */
interface Reader {
  count: number
  wake(): void
}

/** @internal for those that are sources */
export let listen: (source: Eventfd, eventfd: NativeDescriptor) => void
/** @internal the opposite of listen(), whether or not that was called */
export let unlisten: (source: Eventfd) => void
let hear: (source: Eventfd, count: number) => void

/**
 * What the event loop hears of an eventfd: `'event'` with how often it was signalled since the last one. Also an async iterable of
 * those counts, which ends with close(); for a loop that is slow they add up. It keeps the process alive while it listens, as a socket does,
 * until unref(); after that it listens as long as somebody holds it, or its VM. Listeners are called in the async context that it was made in (AsyncLocalStorage); what one throws is an uncaught exception.
 */
export abstract class Eventfd extends EventEmitter<{ event: [count: number]; close: [] }> implements AsyncIterable<number>, Disposable {
  readonly #context = new AsyncResource('KvmEventSource')
  readonly #readers = new Set<Reader>()
  readonly #onClose: () => void
  #key: number | undefined

  static {
    listen = (source, eventfd) => source.#listen(eventfd)
    unlisten = (source) => source.#unlisten()
    hear = (source, count) => source.#hear(count)
  }

  /** Made by {@link VmInterrupts.irqfd} and {@link Vm.ioeventfd} alone. */
  protected constructor(key: symbol, onClose: () => void) {
    checkOurs(key, 'an Eventfd', 'irqfd() or ioeventfd() of a Vm')
    super()
    this.#onClose = onClose
  }

  #listen({ fd }: NativeDescriptor): void {
    const key = nextKey++
    const result = making(() => theWatcher().add(key, fd))
    if (result < 0) throw limitError('watching an eventfd', result)
    this.#key = key
    listening.set(key, new WeakRef(this))
    lost.register(this, key, this)
    this.ref()
  }

  #unlisten(): void {
    this.unref()
    if (this.#key === undefined) return
    lost.unregister(this)
    forget(this.#key)
    this.#key = undefined
  }

  // Those that iterate first: a listener that throws takes nothing from them.
  #hear(count: number): void {
    for (const reader of this.#readers) {
      reader.count += count
      reader.wake()
    }
    this.#context.runInAsyncScope(() => this.emit('event', count))
  }

  /** Keeps the process alive again. */
  ref(): this {
    if (this.#key === undefined) return this
    referenced.add(this)
    bell.ref()
    return this
  }
  /** Lets the process end although this still listens. */
  unref(): this {
    if (referenced.delete(this) && referenced.size === 0) bell.unref()
    return this
  }

  /** Whether close() was called, here or on the VM. */
  abstract get closed(): boolean

  /** Ends it in KVM and here; a second call does nothing. */
  close(): void {
    this.#unlisten()
    this.#onClose()
    for (const reader of this.#readers) reader.wake()
    try {
      this.#context.runInAsyncScope(() => this.emit('close'))
    } catch (error) {
      throwLater(error)
    }
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** The counts, until close(). */
  async *[Symbol.asyncIterator](): AsyncGenerator<number> {
    const reader: Reader = { count: 0, wake: () => {} }
    this.#readers.add(reader)
    try {
      while (reader.count > 0 || !this.closed) {
        const { count } = reader
        reader.count = 0
        if (count > 0) yield count
        else
          await new Promise<void>((resolve) => {
            reader.wake = resolve
          })
      }
    } finally {
      this.#readers.delete(reader)
    }
  }
}
