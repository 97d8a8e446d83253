/**
 * eventfds in the event loop. KVM signals them from within KVM_RUN; one native thread for each environment waits for them all (epoll),
 * adds up what they count and rings a bell (native/doorbell.h says why so, and not by libuv). The libuv thread pool has no part in it, and a
 * guest that signals faster than JavaScript listens makes one event with a larger count, not a queue.
 */
import { EventEmitter, on } from 'node:events'
import { writeSync } from 'node:fs'
import { Doorbell } from '../abi/doorbell.js'
import { errnoName, exhaustion, KvmError, throwLater } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { type NativeDescriptor, type NativeWatcher, native } from '../abi/native.js'

/** An eventfd of ours, to hand to KVM. */
export function createEventfd(): NativeDescriptor {
  const made = making(() => native.eventfd())
  if (typeof made === 'number')
    throw exhaustion('eventfd(2)', made) ?? new KvmError('limit', `eventfd(2): ${errnoName(made)}`, { errno: errnoName(made) })
  return made
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

/** Adds one to its count. A count that is full already says the same. */
export function signalEventfd({ fd }: NativeDescriptor): void {
  try {
    writeSync(fd, one)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
  }
}

// This environment's thread, its bell, and who listens.
let watcher: NativeWatcher | undefined
let bell: Doorbell
const listeners = new Map<number, WeakRef<EventSource>>()
// Those that keep the process alive are held here, the others by whoever has them or their VM.
const referenced = new Set<EventSource>()
let nextKey = 0
const lost = new FinalizationRegistry<number>(forget)

function forget(key: number): void {
  watcher?.remove(key)
  listeners.delete(key)
}

function deliver(): void {
  const counts = watcher!.take()
  for (let at = 0; at < counts.length; at += 2)
    try {
      listeners
        .get(counts[at]!)
        ?.deref()
        ?.emit('event', counts[at + 1]!)
    } catch (error) {
      // The others were taken too, and must hear of it.
      throwLater(error)
    }
}

function theWatcher(): NativeWatcher {
  if (watcher) return watcher
  const made = making(() => native.watchEventfds())
  if (typeof made === 'number')
    throw exhaustion('watching eventfds', made) ?? new KvmError('limit', `watching eventfds: ${errnoName(made)}`, { errno: errnoName(made) })
  bell = new Doorbell(made.subscribe(), deliver)
  bell.unref()
  return (watcher = made)
}

/**
 * What the event loop hears of an eventfd: `'event'` with how often it was signalled since the last one. Also an async iterable of
 * those counts, which ends with close(). It keeps the process alive while it listens, as a socket does, until unref().
 */
export abstract class EventSource extends EventEmitter<{ event: [count: number]; close: [] }> implements AsyncIterable<number>, Disposable {
  #key: number | undefined

  /** @internal */
  protected listen({ fd }: NativeDescriptor): void {
    const key = nextKey++
    const result = theWatcher().add(key, fd)
    if (result < 0)
      throw (
        exhaustion('watching an eventfd', result) ?? new KvmError('limit', `watching an eventfd: ${errnoName(result)}`, { errno: errnoName(result) })
      )
    this.#key = key
    listeners.set(key, new WeakRef(this))
    lost.register(this, key, this)
    this.ref()
  }

  /** Keeps the process alive again. */
  ref(): this {
    if (this.#key !== undefined && referenced.add(this).size === 1) bell.ref()
    return this
  }
  /** Lets the process end although this still listens. It ends by itself once nobody holds it or its VM any more. */
  unref(): this {
    if (referenced.delete(this) && referenced.size === 0) bell.unref()
    return this
  }

  /** Whether close() was called, here or on the VM. */
  abstract get closed(): boolean

  /** Ends it in KVM and here; a second call does nothing. */
  close(): void {
    this.unref()
    if (this.#key !== undefined) {
      forget(this.#key)
      lost.unregister(this)
      this.#key = undefined
    }
    this.emit('close')
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** The counts, until close(). */
  async *[Symbol.asyncIterator](): AsyncGenerator<number> {
    if (this.closed) return
    for await (const [count] of on(this, 'event', { close: ['close'] })) yield count
  }
}
