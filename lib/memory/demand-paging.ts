/** Guest memory whose pages are brought in when they are touched: userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst. */

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

/** A missing page that a guest or the host touched. */
export interface PageFault {
  /** The offset of the page in the mapping. */
  offset: number
  /** Whether the touch was a write. */
  isWrite: boolean
}

/** One or more whole pages, the first of which is the requested one. Null or undefined means a page of zeros. */
export type PageContent = Uint8Array | null | undefined
/** Returns the content of a page, at once or by a promise. */
export type FaultHandler = (fault: PageFault) => PageContent | Promise<PageContent>
/** Where a native thread takes the pages from, without JavaScript: a file from `offset` on, or bytes. Beyond their end the pages are zeros. */
export type PageSource = { file: string; offset?: number } | { content: Uint8Array }

// The objects of this environment whose pages JavaScript serves.
const serving = new Set<DemandPaging>()

// process.exit() waits for the threads of Workers, and these may wait for pages that nobody will serve any more.
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

// How many bytes one call looks at, and how many it serves, before the event loop has its turn.
const lookAtOnce = 1024 * MiB
const broughtAtOnce = MiB

/** @internal Answers the waiting faults, for a thread that is about to wait itself. Returns false if an answer comes later, from the event loop. */
export function serveNow(): boolean {
  let answered = true
  for (const paging of serving) answered = serveWaiting(paging) && answered
  return answered
}

const later = (offset: number) =>
  new KvmError(
    'not-present',
    `the page at offset ${hex(offset)} is not there yet, and its handler answers only from the event loop, which this call would block: await populate() first, or run the vCPU on another thread`,
    { offset }
  )

/** @internal */
export let makePaging: (region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean) => DemandPaging
/** @internal Called before the library itself touches a range on this thread. It throws if some of the range comes only later. */
export let providePages: (paging: DemandPaging, offset: number, length: number) => void
/** @internal Called when the mapping's handle is lost. Only a memslot, perhaps of another environment, can then still ask for a page. */
export let dropPaging: (paging: DemandPaging) => void
let serveWaiting: (paging: DemandPaging) => boolean
let abandon: (paging: DemandPaging) => void

/**
 * Serves the missing pages of a mapping. {@link Mapping.onMissing} and {@link Mapping.onMinorFault} make it.
 *
 * A thread that touches a missing page waits in the kernel until the page is served. It should not be the thread that serves. If the handler is
 * in JavaScript, run the vCPU on another thread than the handler's. A run() on the same thread is interrupted and calls the handler in between;
 * the handler must then answer at once. If a handler throws, or its Worker ends, the pages fail: a guest that touches them gets the error
 * `memory`.
 *
 * The service does not keep the process alive unless ref() was called; the code that runs the guest does. It ends with close(), with the
 * mapping, or once the mapping's handle is lost and no memslot holds the memory. Until then the handler stays alive with everything it refers
 * to: if it refers to its own mapping, or to a VM with that memory, they live until close().
 *
 * A vCPU that waits for a page is interrupted by a time limit of run(), by a kick, and by the end of its Worker. There are two exceptions, in
 * which the kernel ignores signals: before Linux 6.2, and for an instruction that KVM emulates. Such a wait lasts until the page is served or the
 * service is closed. If it blocks the serving thread (in run(), in a change of the memslots, or in another call), or if the vCPU is closed
 * meanwhile, the access fails instead, as `memory` or as an MMIO exit. If the serving thread itself was in run(), that run() makes the access in
 * memory, or the next run() does if the page comes later.
 */
export class DemandPaging implements Disposable {
  readonly #native: NativeFaultService
  readonly #region: NativeRegion
  // close() drops it: the handler may hold the mapping, and Mapping's registry of lost handles holds this object until the mapping is lost.
  #handler: FaultHandler | undefined
  readonly #minor: boolean
  readonly #bell: Doorbell | undefined
  // The pages whose handler is running now, and the pages whose handler answers later.
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
    // The handler runs in the async context that it was given in, whether the event loop calls it or a run() that waits for the page.
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

  /** Whether close() was called, on this object or on the mapping. */
  get closed(): boolean {
    return this.#closed
  }
  /** How many pages were served so far. */
  get served(): number {
    return this.#native.served()
  }

  // Calls the handler for each waiting fault. Returns false if a handler answers later, or if this thread waits for a handler that it is running.
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
          throw new KvmError('not-present', `the page at offset ${hex(page)} is not there yet: this handler was called to bring it`, {
            offset: page
          })
        const served = this.#bringIn(page, runs[at + 1]!)
        if (typeof served !== 'number') throw later(page)
        page += served
      }
  }

  /**
   * Brings in the missing pages of a range, and waits until they are there. Call it before a read(), or ahead of the guest.
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

  /** Brings in a page and returns how many bytes are there now. A handler may bring the page alone, and may answer by a promise. */
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

  /** Asks the handler, and returns how many bytes are there now, at least the page. It returns a promise if the handler answers later. */
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

  // A minor fault concerns the content of the memfd itself, so new content is written there.
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

  /** Keeps the process alive until close() or unref(). A native source never keeps it alive. */
  ref(): this {
    this.#bell?.ref()
    return this
  }
  /** Lets the process end, which is the default. */
  unref(): this {
    this.#bell?.unref()
    return this
  }

  /** Ends the service. Pages that are still missing become ordinary memory: zeros, or the content of the mapped file. A second call does nothing. */
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
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
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
        ? 'this process may serve them, but is under a seccomp filter: if the filter refuses userfaultfd, start the process outside of the sandbox, or with a filter that allows it'
        : 'faults of KVM need CAP_SYS_PTRACE (root has it), sysctl vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd; see node-kvm doctor'
    throw new KvmError('permission', `userfaultfd: ${errno}; ${why}`, { errno })
  }
  const advice: Record<string, string> = {
    ENOSYS: 'this kernel has no userfaultfd',
    EOPNOTSUPP: 'userfaultfd serves anonymous memory and memfds; minor faults need a memfd that was not remapped',
    EEXIST: 'the faults of this mapping are already served',
    EBUSY: 'a live buffer of the mapping exists, and an access through it to a missing page would block this thread'
  }
  const code = errno === 'EEXIST' || errno === 'EBUSY' ? 'in-use' : 'unavailable'
  throw (
    exhaustion('serving page faults', result) ??
    new KvmError(code, `serving page faults: ${errno}; ${advice[errno] ?? 'the kernel refuses it for this memory'}`, {
      errno
    })
  )
}
