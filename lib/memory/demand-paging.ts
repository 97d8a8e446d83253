/** Guest memory whose pages come when they are touched: userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst. */
import { closeSync, openSync } from 'node:fs'
import { argumentError, checkAddress, checkBytes, checkOptions, hex, pageSize } from '../abi/arguments.js'
import { Doorbell } from '../abi/doorbell.js'
import { errnoName, KvmError, throwLater } from '../abi/errors.js'
import type { FaultServiceOptions, NativeFaultService, NativeRegion } from '../abi/native.js'

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

/** @internal Answers what waits, for a thread that is about to wait for itself. False when an answer comes only later, from the event loop. */
export function serveNow(): boolean {
  let answered = true
  for (const paging of serving) answered = paging.serveWaiting() && answered
  return answered
}

const later = (offset: number) =>
  new KvmError(
    'not-present',
    `the page at offset ${hex(offset)} is not there yet, and its handler answers only from the event loop, which this call would hold up: await populate() first, or run the vCPU on another thread`,
    { offset }
  )

/**
 * The service of a mapping's missing pages. Made by {@link Mapping.onMissing} and {@link Mapping.onMinorFault}.
 *
 * Who touches a missing page waits in the kernel until it is served: best on a thread that does not serve. With a handler in JavaScript
 * the vCPU belongs on another thread than the handler's; run() on the same thread is interrupted and calls the handler in between, which
 * must then answer at once. A handler that throws, or a Worker that ends, fails the pages: a guest that touches them gets the error `memory`.
 *
 * A time limit of run(), a kick, the end of a Worker interrupt a vCPU's wait, with two exceptions: before Linux 6.2, and for an instruction that
 * KVM emulates, the kernel heeds no signal there. Such a wait lasts until the page is served or the service closed; if the serving thread is
 * held up by it (in run(), or in a change of the memslots), the access fails instead, as `memory` or as an MMIO exit.
 */
export class DemandPaging implements Disposable {
  readonly #native: NativeFaultService
  readonly #region: NativeRegion
  readonly #handler: FaultHandler | undefined
  readonly #minor: boolean
  readonly #bell: Doorbell | undefined
  // Pages whose handler is on the stack, and those whose handler answers later.
  readonly #asking = new Set<number>()
  readonly #inFlight = new Map<number, Promise<void>>()
  readonly #onClose: () => void
  #closed = false

  /** @internal */
  constructor(region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean, onClose: () => void) {
    this.#handler = typeof origin === 'function' ? origin : undefined
    this.#region = region
    this.#minor = minor
    this.#onClose = onClose
    this.#native = begin(region, origin, minor)
    if (!this.#handler) return
    this.#bell = new Doorbell(this.#native.subscribe(), () => this.serveWaiting())
    serving.add(this)
  }

  /** Whether close() was called, here or on the mapping. */
  get closed(): boolean {
    return this.#closed
  }
  /** Pages served so far. */
  get served(): number {
    return this.#native.served()
  }

  /** @internal a handler for each fault that waits; false when one answers later */
  serveWaiting(): boolean {
    const faults = this.#native.take()
    for (let at = 0; at < faults.length; at += 2) this.#ask({ offset: faults[at]!, isWrite: faults[at + 1] === 1 })
    return this.#inFlight.size === 0
  }

  /** @internal before the library itself touches a range on this thread; throws when some of it comes only later */
  provide(offset: number, length: number): void {
    for (const missing of this.#native.missing(offset, length)) {
      if (this.#asking.has(missing))
        throw new KvmError('not-present', `the page at offset ${hex(missing)} is not there yet: it is what this handler was asked for`, {
          offset: missing
        })
      if (!this.#inFlight.has(missing)) this.#ask({ offset: missing, isWrite: false })
      if (this.#inFlight.has(missing)) throw later(missing)
    }
  }

  /**
   * Asks for the pages of a range that are missing, and waits until they are there: before a read(), or ahead of the guest.
   * @throws KvmError `closed`
   */
  async populate(offset = 0, length = this.#region.size - offset): Promise<void> {
    if (this.#closed) throw new KvmError('closed', 'this demand paging is closed')
    checkAddress('offset', offset)
    for (const missing of this.#native.missing(offset, length)) {
      if (this.#handler === undefined) this.#region.read(missing, new Uint8Array(1))
      else if (!this.#inFlight.has(missing)) this.#ask({ offset: missing, isWrite: false })
      await this.#inFlight.get(missing)
    }
  }

  #ask(fault: PageFault): void {
    const { offset } = fault
    try {
      this.#asking.add(offset)
      const content = this.#handler!(fault)
      if (content instanceof Promise) this.#inFlight.set(offset, this.#serveLater(offset, content))
      else this.#serve(offset, content)
    } catch (error) {
      this.#fail(offset, error)
    } finally {
      this.#asking.delete(offset)
    }
  }

  async #serveLater(offset: number, content: Promise<PageContent>): Promise<void> {
    try {
      this.#serve(offset, await content)
    } catch (error) {
      this.#fail(offset, error)
    } finally {
      this.#inFlight.delete(offset)
    }
  }

  #serve(offset: number, content: PageContent): void {
    if (this.#closed) return
    if (content !== null && content !== undefined) {
      const { byteLength } = checkBytes('the content of a page', content)
      if (byteLength === 0 || byteLength % pageSize !== 0) throw argumentError('the content of a page', `${byteLength} bytes`, 'whole pages of 4096')
    }
    this.#put(offset, content?.byteLength ?? pageSize, content ?? null)
  }

  // A minor fault is about the memfd's own content: that is where new content goes.
  #put(offset: number, length: number, content: Uint8Array | null): void {
    const written = this.#minor && content ? this.#region.write(offset, content) : 0
    const result = written < 0 ? written : this.#native.serve(offset, length, content)
    if (result < 0)
      throw new KvmError('memory', `serving ${length} bytes at offset ${hex(offset)}: ${errnoName(result)}; do they reach past the mapping's end?`, {
        errno: errnoName(result)
      })
  }

  #fail(offset: number, error: unknown): void {
    if (this.#closed) return
    this.#native.fail(offset)
    throwLater(error)
  }

  /** Keeps the process alive again, while pages may be missing. A native source never does. */
  ref(): this {
    this.#bell?.ref()
    return this
  }
  /** Lets the process end. */
  unref(): this {
    this.#bell?.unref()
    return this
  }

  /** Ends it: what is missing still becomes ordinary memory, zeros unless its file says otherwise. A second call does nothing. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    serving.delete(this)
    this.#bell?.close()
    this.#native.close()
    this.#onClose()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}

function begin(region: NativeRegion, origin: FaultHandler | PageSource, minor: boolean): NativeFaultService {
  if (typeof origin === 'function') return checkService(region.serveFaults({ minor }))
  if (typeof origin === 'object' && origin !== null && 'content' in origin) {
    const { content } = checkOptions('source', origin, ['content'])
    return checkService(region.serveFaults({ minor, content: checkBytes('content', content) }))
  }
  const { file, offset = 0 } = checkOptions('source', origin as { file: string; offset?: number }, ['file', 'offset'])
  if (typeof file !== 'string') throw argumentError('file', typeof file, 'a string; or give content, or a function')
  checkAddress('offset', offset)
  const fd = openSource(file)
  try {
    const options: FaultServiceOptions = { minor, fd, offset }
    return checkService(region.serveFaults(options))
  } finally {
    closeSync(fd)
  }
}

function openSource(file: string): number {
  try {
    return openSync(file, 'r')
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException
    throw new KvmError('memory', `opening ${file} for its pages: ${code}`, { errno: code, path: file })
  }
}

function checkService(result: NativeFaultService | number): NativeFaultService {
  if (typeof result !== 'number') return result
  const errno = errnoName(result)
  if (errno === 'EPERM' || errno === 'EACCES')
    throw new KvmError(
      'permission',
      `userfaultfd: ${errno}; faults of KVM need CAP_SYS_PTRACE (sudo), sysctl vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd`,
      { errno }
    )
  const advice: Record<string, string> = {
    ENOSYS: 'this kernel has no userfaultfd',
    EOPNOTSUPP: 'it is there for anonymous memory and memfds; minor faults only for a memfd that was not remapped',
    EEXIST: 'the faults of this mapping are served already',
    EBUSY: 'a live buffer of the mapping exists, through which a missing page would stop this thread'
  }
  const code = errno === 'EEXIST' || errno === 'EBUSY' ? 'in-use' : 'unavailable'
  throw new KvmError(code, `serving page faults: ${errno}; ${advice[errno] ?? 'the kernel refuses it for this memory'}`, { errno })
}
