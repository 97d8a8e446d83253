/**
 * Eventfds in the event loop. KVM signals them from within KVM_RUN. In each environment one native thread waits for them all (epoll), adds up
 * their counts and wakes the event loop (native/core/doorbell.h explains why libuv does not do this). The libuv thread pool takes no part. If a
 * guest signals faster than JavaScript listens, the result is one event with a larger count, not a queue.
 */
import { AsyncResource } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import { writeSync } from 'node:fs'
import { Doorbell } from '../abi/doorbell.js'
import { limitError, throwLater } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { checkOurs } from '../abi/internal.js'
import { type NativeDescriptor, type NativeWatcher, native } from '../abi/native.js'

/** @internal Makes an eventfd that the library owns, to hand to KVM. */
export function createEventfd(): NativeDescriptor {
  const made = making(() => native.eventfd())
  if (typeof made === 'number') throw limitError('an eventfd', made)
  return made
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

/** @internal Adds one to the count. A full count needs no more: it already says that there was a signal. */
export function signalEventfd({ fd }: NativeDescriptor): void {
  try {
    writeSync(fd, one)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
  }
}

// The thread of this environment and its doorbell, from the first listener on, and the objects that listen. Objects that keep the process alive
// are held strongly. The others live as long as somebody holds them or their VM.
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
      // The counts of the other eventfds were taken, too, so these must still hear of them.
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

/** An async iterator over counts: the count since its last step, and a function that wakes it. */
interface Reader {
  count: number
  wake(): void
}

/** @internal Starts listening, for classes that are event sources. */
export let listen: (source: Eventfd, eventfd: NativeDescriptor) => void
/** @internal Stops listening, whether or not listen() was called. */
export let unlisten: (source: Eventfd) => void
let hear: (source: Eventfd, count: number) => void

/**
 * An eventfd in the event loop. It emits `'event'` with the number of signals since the last event. It is also an async iterable of these counts,
 * which ends with close(); if the loop is slow, the counts add up. It keeps the process alive while it listens, as a socket does, until unref().
 * After that it listens as long as somebody holds it or its VM. Listeners run in the async context in which the object was made
 * (AsyncLocalStorage). An error that a listener throws is an uncaught exception.
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

  /** Only {@link VmInterrupts.irqfd} and {@link Vm.ioeventfd} make one. */
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

  // Iterators come first, so that a listener that throws takes nothing from them.
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
  /** Lets the process end although this object still listens. */
  unref(): this {
    if (referenced.delete(this) && referenced.size === 0) bell.unref()
    return this
  }

  /** Whether close() was called, on this object or on the VM. */
  abstract get closed(): boolean

  /** Ends it in KVM and in the event loop. A second call does nothing. */
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
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Iterates over the counts until close(). */
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
