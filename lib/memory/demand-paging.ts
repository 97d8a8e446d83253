/** Guest memory whose pages come when they are touched: userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst. */

import { AsyncResource } from 'node:async_hooks'
import { closeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { isPromise } from 'node:util/types'
import { argumentError, checkAddress, checkBytes, checkInteger, checkOptions, hex, hexRange, MiB, pageSize, restAfter } from '../abi/arguments.js'
import { Doorbell } from '../abi/doorbell.js'
import { errnoName, exhaustion, KvmError, throwLater } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { FaultServiceOptions, NativeFaultService, NativeRegion } from '../abi/native.js'
import { holds, isFiltered, numberAt } from '../abi/procfs.js'
import { shown } from '../abi/text.js'
import { openBackingFile } from './backing-file.js'

/** A page that a guest, or the host, touched and that is not there. */
export interface PageFault {
  /** Where in the mapping the page begins. */
  offset: number
  /** Whether the touch was a write. */
  isWrite: boolean
}

/** Whole pages, of which the first is the one asked for; nothing for a page of zeros. */
export type PageContent = Uint8Array | null | undefined
/** Gives the content of a page, at once or later. */
export type FaultHandler = (fault: PageFault) => PageContent | Promise<PageContent>
/** Where a native thread takes the pages from, without JavaScript: a file, beginning at `offset`, or bytes; zeros beyond their end. */
export type PageSource = { file: string; offset?: number } | { content: Uint8Array }

// Those of this environment whose pages JavaScript serves.
const serving = new Set<DemandPaging>()

// process.exit() waits for the Workers' threads, and they may wait for pages that nobody serves any more.
function abandonAll(): void {
  for (const paging of serving) abandon(paging)
}
function serve(paging: DemandPaging): void {
  if (serving.size === 0) process.once('exit', abandonAll)
  serving.add(paging)
}
function serveNoMore(paging: DemandPaging): void {
  if (serving.delete(paging) && serving.size === 0) process.off('exit', abandonAll)
}

// What one call looks for, or serves, before the event loop has its turn.
const lookAtOnce = 1024 * MiB
const broughtAtOnce = MiB

/** @internal Answers what waits, for a thread that is about to wait for itself. False when an answer comes only later, from the event loop. */
export function serveNow(): boolean {
  let answered = true
  for (const paging of serving) answered = serveWaiting(paging) && answered
  return answered
}

const later = (offset: number) =>
  new KvmError(
    'not-present',
    `the page at offset ${hex(offset)} is not there yet, and its handler answers only from the event loop, which this call would hold up: await populate() first, or run the vCPU on another thread`,
    { offset }
  )

/** @internal */
export let makePaging: (region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean) => DemandPaging
/** @internal before the library itself touches a range on this thread; throws when some of it comes only later */
export let providePages: (paging: DemandPaging, offset: number, length: number) => void
/** @internal the mapping's handle is lost: nothing but a memslot, which another environment may have made, can ask for a page */
export let dropPaging: (paging: DemandPaging) => void
let serveWaiting: (paging: DemandPaging) => boolean
let abandon: (paging: DemandPaging) => void

/**
 * The service of a mapping's missing pages. Made by {@link Mapping.onMissing} and {@link Mapping.onMinorFault}.
 *
 * Who touches a missing page waits in the kernel until it is served: best on a thread that does not serve. With a handler in JavaScript
 * the vCPU belongs on another thread than the handler's; run() on the same thread is interrupted and calls the handler in between, which
 * must then answer at once. A handler that throws, or a Worker that ends, fails the pages: a guest that touches them gets the error `memory`.
 *
 * It does not keep the process alive, unless ref() was called: whoever runs the guest does. It ends with close(), with the mapping, or once
 * the mapping's handle is lost and no memslot holds the memory. A handler lives until then with whatever it names: one that names its own
 * mapping, or a VM with that memory, keeps them until close().
 *
 * A time limit of run(), a kick, the end of a Worker interrupt a vCPU's wait, with two exceptions: before Linux 6.2, and for an instruction that
 * KVM emulates, the kernel heeds no signal there. Such a wait lasts until the page is served or the service closed; if the serving thread is
 * held up by it (in run(), in a change of the memslots, or in another call), or if the vCPU is closed meanwhile, the access fails instead, as
 * `memory` or as an MMIO exit. Where it was run() of the serving thread, run() makes the access itself, or the next one does if the page comes
 * later.
 */
export class DemandPaging implements Disposable {
  readonly #native: NativeFaultService
  readonly #region: NativeRegion
  // Until close(): it may hold the mapping, for whose end this is kept (Mapping's registry of what is lost).
  #handler: FaultHandler | undefined
  readonly #minor: boolean
  readonly #bell: Doorbell | undefined
  // Pages whose handler is on the stack, and those whose handler answers later.
  readonly #asking = new Set<number>()
  readonly #inFlight = new Map<number, Promise<number>>()
  #closed = false

  static {
    makePaging = (region, origin, minor) => new DemandPaging(ours, region, origin, minor)
    providePages = (paging, offset, length) => paging.#provide(offset, length)
    dropPaging = (paging) => paging.#dropped()
    serveWaiting = (paging) => paging.#serveWaiting()
    abandon = (paging) => paging.#native.abandon()
  }

  private constructor(key: symbol, region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean) {
    checkOurs(key, 'a DemandPaging', 'onMissing() or onMinorFault() of a Mapping')
    // In the async context of whoever asked for it, whether the event loop calls it or a run() that waits for the page.
    this.#handler = typeof origin === 'function' ? AsyncResource.bind(origin) : undefined
    this.#region = region
    this.#minor = minor
    this.#native = begin(region, origin, minor)
    if (!this.#handler) return
    try {
      this.#bell = new Doorbell(this.#native.subscribe(), () => this.#serveWaiting())
    } catch (error) {
      this.#native.close()
      throw error
    }
    this.#bell.unref()
    serve(this)
  }

  /** Whether close() was called, here or on the mapping. */
  get closed(): boolean {
    return this.#closed
  }
  /** Pages served so far. */
  get served(): number {
    return this.#native.served()
  }

  // A handler for each fault that waits; false when one answers later, or when this thread waits for one that is at work.
  #serveWaiting(): boolean {
    const faults = this.#native.take()
    let answered = true
    for (let at = 0; at < faults.length && !this.#closed; at += 2) {
      const offset = faults[at]!
      if (this.#asking.has(offset)) answered = false
      else if (!this.#inFlight.has(offset)) void this.#ask({ offset, isWrite: faults[at + 1] === 1 })
    }
    return answered && this.#inFlight.size === 0
  }

  #provide(offset: number, length: number): void {
    const runs = this.#native.missing(offset, length)
    for (let at = 0; at < runs.length; at += 2)
      for (let page = runs[at]!; page < runs[at]! + runs[at + 1]! && !this.#closed; ) {
        if (this.#asking.has(page))
          throw new KvmError('not-present', `the page at offset ${hex(page)} is not there yet: it is what this handler was asked for`, {
            offset: page
          })
        const served = this.#bringIn(page, runs[at + 1]!)
        if (typeof served !== 'number') throw later(page)
        page += served
      }
  }

  /**
   * Asks for the pages of a range that are missing, and waits until they are there: before a read(), or ahead of the guest.
   * @throws KvmError `closed`, `argument`
   */
  async populate(offset = 0, length = restAfter(offset, this.#region.size)): Promise<void> {
    if (this.#closed) throw new KvmError('closed', 'this demand paging is closed')
    checkAddress('offset', offset)
    const end = Math.min(offset + checkInteger('length', length), this.#region.size)
    let sinceTurn = 0
    for (let from = offset; from < end; from += lookAtOnce) {
      const runs = this.#native.missing(from, Math.min(lookAtOnce, end - from))
      for (let at = 0; at < runs.length; at += 2)
        for (let page = runs[at]!, over = page + runs[at + 1]!; page < over && !this.#closed; ) {
          const brought = this.#bringIn(page, Math.min(broughtAtOnce, over - page))
          const bytes = typeof brought === 'number' ? brought : await brought
          page += bytes
          sinceTurn += bytes
          if (sinceTurn < broughtAtOnce) continue
          sinceTurn = 0
          await turn()
        }
    }
  }

  /** How many bytes are there now: of the page alone where a handler brings it and no more, or later, by a promise. */
  #bringIn(page: number, most: number): number | Promise<number> {
    if (this.#handler === undefined) return this.#takeFromSource(page, most)
    return this.#inFlight.get(page) ?? this.#ask({ offset: page, isWrite: false })
  }

  #takeFromSource(offset: number, length: number): number {
    const result = this.#native.makePresent(offset, length)
    if (result < 0)
      throw new KvmError('memory', `reading the source of ${length} bytes at offset ${hex(offset)}: ${errnoName(result)}`, {
        errno: errnoName(result)
      })
    return length
  }

  /** How many bytes are there now, the page's own at least; a promise where the handler answers later. */
  #ask(fault: PageFault): number | Promise<number> {
    const { offset } = fault
    try {
      this.#asking.add(offset)
      const content = this.#handler!(fault)
      if (!isPromise(content)) return this.#serve(offset, content)
      const served = this.#serveLater(offset, content)
      this.#inFlight.set(offset, served)
      return served
    } catch (error) {
      return this.#fail(offset, error)
    } finally {
      this.#asking.delete(offset)
    }
  }

  async #serveLater(offset: number, content: Promise<PageContent>): Promise<number> {
    try {
      return this.#serve(offset, await content)
    } catch (error) {
      return this.#fail(offset, error)
    } finally {
      this.#inFlight.delete(offset)
    }
  }

  #serve(offset: number, content: PageContent): number {
    if (this.#closed) return pageSize
    if (content !== null && content !== undefined) {
      const { byteLength } = checkBytes('the content of a page', content)
      if (byteLength === 0 || byteLength % pageSize !== 0) throw argumentError('the content of a page', `${byteLength} bytes`, 'whole pages of 4096')
    }
    const length = content?.byteLength ?? pageSize
    this.#put(offset, length, content ?? null)
    return length
  }

  // A minor fault is about the memfd's own content: that is where new content goes.
  #put(offset: number, length: number, content: Uint8Array | null): void {
    const written = this.#minor && content ? this.#region.write(offset, content) : 0
    const result = written < 0 ? written : this.#native.serve(offset, length, content)
    if (result >= 0) return
    const beyond = offset + length > this.#region.size ? `; they reach past the mapping's end at ${hex(this.#region.size)}` : ''
    throw new KvmError('memory', `serving ${length} bytes at offset ${hex(offset)}: ${errnoName(result)}${beyond}`, { errno: errnoName(result) })
  }

  #fail(offset: number, error: unknown): number {
    if (!this.#closed) {
      this.#native.fail(offset)
      throwLater(error)
    }
    return pageSize
  }

  /** Keeps the process alive until close() or unref(). A native source never does. */
  ref(): this {
    this.#bell?.ref()
    return this
  }
  /** Lets the process end, as at first. */
  unref(): this {
    this.#bell?.unref()
    return this
  }

  /** Ends it: what is missing still becomes ordinary memory, zeros unless its file says otherwise. A second call does nothing. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#handler = undefined
    serveNoMore(this)
    this.#bell?.close()
    this.#native.close()
  }
  #dropped(): void {
    if (this.#region.slots === 0) this.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    const { address, size } = this.#region
    const origin = this.#minor ? 'minor faults' : this.#bell ? 'handler' : 'source'
    return shown('DemandPaging', { hva: address === 0 ? undefined : hexRange(address, size), of: origin, served: this.served, closed: this.#closed })
  }
}

function begin(region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean): NativeFaultService {
  if (typeof origin === 'function') return checkService(making(() => region.serveFaults({ minor })))
  if (typeof origin === 'object' && origin !== null && 'content' in origin) {
    const { content } = checkOptions('source', origin, ['content'])
    return checkService(making(() => region.serveFaults({ minor, content: checkBytes('content', content) })))
  }
  const { file, offset = 0 } = checkOptions('source', origin as { file: string; offset?: number }, ['file', 'offset'])
  if (typeof file !== 'string') throw argumentError('file', file, 'a string; or give content, or a function')
  checkAddress('offset', offset)
  const fd = openBackingFile(file, 'r', 'for its pages')
  try {
    const options: FaultServiceOptions = { minor, fd, offset }
    return checkService(making(() => region.serveFaults(options)))
  } finally {
    closeSync(fd)
  }
}

function checkService(result: NativeFaultService | number): NativeFaultService {
  if (typeof result !== 'number') return result
  const errno = errnoName(result)
  if (errno === 'EPERM' || errno === 'EACCES') {
    const may = holds('CapEff', 'sys_ptrace') || numberAt('/proc/sys/vm/unprivileged_userfaultfd') === 1
    const why =
      may && isFiltered()
        ? 'this process may serve them, and is under a seccomp filter: if that refuses userfaultfd, start it outside of the sandbox, or with a filter that allows it'
        : 'faults of KVM need CAP_SYS_PTRACE (root has it), sysctl vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd; see node-kvm doctor'
    throw new KvmError('permission', `userfaultfd: ${errno}; ${why}`, { errno })
  }
  const advice: Record<string, string> = {
    ENOSYS: 'this kernel has no userfaultfd',
    EOPNOTSUPP: 'it is there for anonymous memory and memfds; minor faults only for a memfd that was not remapped',
    EEXIST: 'the faults of this mapping are served already',
    EBUSY: 'a live buffer of the mapping exists, through which a missing page would stop this thread'
  }
  const code = errno === 'EEXIST' || errno === 'EBUSY' ? 'in-use' : 'unavailable'
  throw (
    exhaustion('serving page faults', result) ??
    new KvmError(code, `serving page faults: ${errno}; ${advice[errno] ?? 'the kernel refuses it for this memory'}`, {
      errno
    })
  )
}
