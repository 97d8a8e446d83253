/** Host memory for guests, which gives a memslot its HVAs. */

import { closeSync } from 'node:fs'
import { inspect } from 'node:util'
import type { Hva } from '../abi/addresses.js'
import {
  argumentError,
  checkAddress,
  checkBoolean,
  checkBytes,
  checkInteger,
  checkOneOf,
  checkOptions,
  checkSize,
  hex,
  hexRange,
  MiB,
  pageSize,
  restAfter
} from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { making, zeroed } from '../abi/exhausted.js'
import { checkOurs, ours } from '../abi/internal.js'
import { type NativeRegion, native, type RegionOptions } from '../abi/native.js'
import { shown } from '../abi/text.js'
import { openBackingFile } from './backing-file.js'
import { announcing } from './changes.js'
import { type DemandPaging, dropPaging, type FaultHandler, makePaging, type PageSource, providePages } from './demand-paging.js'
import {
  type Advice,
  type AnonymousOptions,
  adviceNumbers,
  commonOptions,
  type FileOptions,
  type HugetlbOptions,
  type MappingOptions,
  type Protection,
  protections
} from './mapping-options.js'
import { memoryError, notServedHere, unmappedError } from './mapping-refusal.js'

// The event loop holds the object that serves pages, so that object must not hold the mapping.
const lostWithPaging = new FinalizationRegistry<DemandPaging>((paging) => dropPaging(paging))

/** @internal Makes the handle of memory that another environment mapped. */
export let mappingOver: (region: NativeRegion) => Mapping
/** @internal Maps the pages of an open file. The mapping duplicates the descriptor. */
export let mapDescriptor: (request: RegionOptions, options: MappingOptions) => Mapping
/** @internal Returns the region that a new memslot hands to the VM. */
export let regionOf: (mapping: Mapping) => NativeRegion
/** @internal Returns the region for a memslot that already holds the memory, even after the handle ended. */
export let heldRegionOf: (mapping: Mapping) => NativeRegion
/** @internal Tells that a memslot released the memory. A handle that ended while slots held the memory releases it after the last one. */
export let slotGone: (mapping: Mapping) => void

/**
 * A range of host memory that can stand behind memslots. It is unmapped when no handle, no memslot and no buffer holds it.
 * @example
 * using ram = Mapping.anonymous(2 * MiB)
 * ram.write(0x1000, new Uint8Array([0xf4]))
 * vm.memslots.create({ gpa: 0, mapping: ram })
 */
export class Mapping implements Disposable {
  /** How the memory is backed. */
  readonly kind: 'anonymous' | 'memfd' | 'hugetlb' | 'file'
  /** The size in bytes, whole pages. */
  readonly size: number
  /** The HVA of the first byte. */
  readonly address: Hva
  readonly #region: NativeRegion
  #closed = false
  #paging: DemandPaging | undefined

  private constructor(key: symbol, region: NativeRegion) {
    checkOurs(key, 'a Mapping', 'Mapping.anonymous(), memfd(), hugetlb() or file()')
    this.#region = region
    this.kind = region.kind
    this.size = region.size
    this.address = region.address
  }

  static {
    mapDescriptor = (request, options) => Mapping.#map(request, options)
    mappingOver = (region) => new Mapping(ours, region)
    regionOf = (mapping) => {
      mapping.#open()
      return mapping.#region
    }
    heldRegionOf = (mapping) => mapping.#region
    slotGone = (mapping) => mapping.#slotGone()
  }

  static #map(request: RegionOptions, options: MappingOptions): Mapping {
    const { address, fixed = false, populate = false, hugePages } = options
    for (const [name, value] of Object.entries({ fixed, populate, hugePages: hugePages === undefined ? false : hugePages })) checkBoolean(name, value)
    if (address !== undefined) checkAddress('address', address, pageSize)
    // Root may map the page at 0. But no buffer can be there, and a read through a null pointer would no longer fault.
    if (fixed && address === 0) throw argumentError('address', address, 'above 0')
    if (fixed && address === undefined) throw argumentError('fixed', fixed, 'given together with address')
    const advice = hugePages === undefined ? undefined : adviceNumbers[hugePages ? 'hugepage' : 'nohugepage']
    const asked = { ...request, fixed, populate, ...(advice !== undefined && { advice }), ...(address !== undefined && { address }) }
    const region = making(() => native.map(asked))
    if (typeof region === 'number') throw unmappedError(asked, region)
    return new Mapping(ours, region)
  }

  /**
   * Maps private zeroed memory: mmap(MAP_ANONYMOUS). If it has at least 2 MiB, it is aligned to 2 MiB, so that huge pages can form.
   * @param size the size in bytes, a multiple of 4 KiB
   * @throws KvmError `argument` or `memory`
   */
  static anonymous(size: number, options: AnonymousOptions = {}): Mapping {
    const { noReserve = false } = checkOptions('options', options, [...commonOptions, 'noReserve'])
    checkBoolean('noReserve', noReserve)
    return Mapping.#map({ kind: 'anonymous', size: checkSize('size', size, pageSize), noReserve }, options)
  }

  /** Maps shared memory without a name: memfd_create(2), sealed against shrinking. */
  static memfd(size: number, options: MappingOptions = {}): Mapping {
    checkOptions('options', options, commonOptions)
    return Mapping.#map({ kind: 'memfd', size: checkSize('size', size, pageSize) }, options)
  }

  /** Maps pages of the huge page pool (Documentation/admin-guide/mm/hugetlbpage.rst). */
  static hugetlb(size: number, options: HugetlbOptions = {}): Mapping {
    const { hugePageSize = 2 * MiB } = checkOptions('options', options, [...commonOptions, 'hugePageSize'])
    checkInteger('hugePageSize', hugePageSize, pageSize)
    if (!Number.isInteger(Math.log2(hugePageSize))) throw argumentError('hugePageSize', hugePageSize, 'a power of two')
    return Mapping.#map({ kind: 'hugetlb', size: checkSize('size', size, hugePageSize), hugePageSize }, options)
  }

  /** Maps the bytes of a file. A read past the file's end throws here; for a guest it gives EFAULT or an MMIO exit. */
  static file(path: string, size: number, options: FileOptions = {}): Mapping {
    checkOptions('options', options, [...commonOptions, 'offset', 'shared', 'readonly'])
    if (typeof path !== 'string') throw argumentError('path', path, 'a string')
    const { shared = false, readonly = false, offset = 0 } = options
    for (const [name, value] of Object.entries({ shared, readonly })) checkBoolean(name, value)
    checkAddress('offset', offset, pageSize)
    checkSize('size', size, pageSize)
    const fd = openBackingFile(path, readonly || !shared ? 'r' : 'r+', 'to map it')
    try {
      return Mapping.#map({ kind: 'file', size, fd, offset, shared, readonly }, options)
    } finally {
      closeSync(fd)
    }
  }

  #slotGone(): void {
    if (this.#closed && this.#region.slots === 0)
      announcing(
        () => this.#release(),
        () => [{ of: 'mapping', did: 'unmap', hva: this.address, size: this.size }]
      )
  }
  #release(): number {
    this.#paging?.close()
    this.#region.release()
    return 0
  }
  /** Whether the handle ended. Memslots and buffers may hold the memory longer. */
  get closed(): boolean {
    return this.#closed
  }

  #open(): void {
    if (this.#closed) throw new KvmError('closed', `the mapping at ${hex(this.address)} is closed`)
  }

  #range(offset: number, length: number, alignment = 1): void {
    this.#open()
    checkInteger('offset', offset)
    checkInteger('length', length)
    if (offset + length > this.size)
      throw new KvmError('argument', `offset ${hex(offset)} and length ${hex(length)} reach past the mapping's end at ${hex(this.size)}`, {
        argument: 'offset'
      })
    if (offset % alignment !== 0) throw argumentError('offset', offset, `a multiple of ${alignment}`)
    if (length % alignment !== 0) throw argumentError('length', length, `a multiple of ${alignment}`)
  }

  #check(result: number, asked: string): void {
    if (result >= 0) return
    const what = `${asked} of the mapping at ${hexRange(this.address, this.size)}`
    // Only an access waits for pages.
    if (errnoName(result) === 'EAGAIN' && ['read', 'write', 'fill'].includes(asked)) throw notServedHere(what, result)
    throw memoryError(what, result, { kind: this.kind, buffered: this.#region.buffered, served: this.#paging?.closed === false })
  }

  // Asks first for the pages that this thread itself serves: a wait for them inside the call would never end.
  #access(asked: string, offset: number, length: number, work: () => number): void {
    let result = work()
    if (this.#paging && !this.#paging.closed && errnoName(result) === 'EAGAIN') {
      providePages(this.#paging, offset, length)
      result = work()
    }
    this.#check(result, asked)
  }

  #change(did: string, offset: number, size: number, work: () => number): void {
    this.#access(did, offset, size, () => announcing(work, () => [{ of: 'mapping', did, hva: this.address + offset, size }]))
  }

  /** Returns a copy of `length` bytes from `offset`. */
  read(offset: number, length: number): Uint8Array {
    this.#range(offset, length)
    const bytes = zeroed(length)
    this.#access('read', offset, length, () => this.#region.read(offset, bytes))
    return bytes
  }

  /** Copies bytes from `offset` into `target`, without allocating. */
  readInto(offset: number, target: Uint8Array): void {
    this.#range(offset, checkBytes('target', target).byteLength)
    this.#access('read', offset, target.byteLength, () => this.#region.read(offset, target))
  }

  /** Copies `bytes` to `offset`. */
  write(offset: number, bytes: Uint8Array): void {
    this.#range(offset, checkBytes('bytes', bytes).byteLength)
    this.#access('write', offset, bytes.byteLength, () => this.#region.write(offset, bytes))
  }

  /** Sets bytes to one value. */
  fill(value: number, offset = 0, length = restAfter(offset, this.size)): void {
    checkInteger('value', value, 0, 255)
    this.#range(offset, length)
    this.#access('fill', offset, length, () => this.#region.fill(offset, length, value))
  }

  /**
   * Puts other pages under the same HVA: zeroed, or with `content`. This is one step: a running guest sees the old pages or the new ones. KVM's MMU
   * notifier drops the second-stage entries of the old pages (Documentation/virt/kvm/locking.rst).
   *
   * Another page means another frame. For each page that is present, a new one is brought in before the old one goes, so for a moment both are held.
   * A page that the host had not brought in stays absent. For a file, the same file is mapped anew, and pages that are shared or unwritten keep
   * their frames. `advise('dontneed')` never holds two pages: the next access brings one in, perhaps the same frame.
   * @throws KvmError `memory`, and changes nothing, if there is not enough memory for both
   * @example
   * mapping.remap(0, 4096)
   */
  remap(offset = 0, length = restAfter(offset, this.size), content?: Uint8Array): void {
    const step = this.kind === 'hugetlb' ? 2 * MiB : pageSize
    this.#range(offset, length, step)
    if (length === 0) throw argumentError('length', length, 'above 0')
    if (content !== undefined && checkBytes('content', content).byteLength !== length)
      throw argumentError('content', content, `${length} bytes, the length remapped`)
    this.#change('remap', offset, length, () => this.#region.remap(offset, length, content ?? null))
  }

  /** Calls madvise(2): `dontneed` frees pages, `hugepage` asks for huge pages, `collapse` makes them now. */
  advise(advice: Advice, offset = 0, length = restAfter(offset, this.size)): void {
    checkOneOf('advice', advice, Object.keys(adviceNumbers) as Advice[])
    this.#range(offset, length, pageSize)
    this.#change(`advise(${advice})`, offset, length, () => this.#region.advise(offset, length, adviceNumbers[advice]))
  }

  /**
   * Frees pages of a memfd or a shared file: fallocate(2) with FALLOC_FL_PUNCH_HOLE. Afterwards they read as zeros, also in other mappings of the
   * file.
   * @throws KvmError `memory` for other kinds, and for a memfd of which a part was remapped; use `advise('remove')` there
   */
  punchHole(offset = 0, length = restAfter(offset, this.size)): void {
    this.#range(offset, length, pageSize)
    this.#change('punchHole', offset, length, () => this.#region.punchHole(offset, length))
  }

  /** Calls mprotect(2). It is refused while a live buffer exists, unless the memory stays readable and writable. */
  protect(protection: Protection, offset = 0, length = restAfter(offset, this.size)): void {
    checkOneOf('protection', protection, Object.keys(protections) as Protection[])
    this.#range(offset, length, pageSize)
    this.#change(`protect(${protection})`, offset, length, () => this.#region.protect(offset, length, protections[protection]))
  }

  /**
   * Serves missing pages when a guest touches them. A native thread takes them from a file or from bytes, or a JavaScript handler is called in the
   * event loop of this thread. It works for anonymous memory and memfds without a live buffer. Pages that were written before stay.
   * @throws KvmError `permission` if the process may not serve faults that happen in the kernel, `unavailable`, `in-use`
   * @example
   * using lazy = Mapping.anonymous(2 * MiB)
   * using paging = lazy.onMissing(({ offset }) => new Uint8Array(4 * KiB).fill(offset / 4096))
   * lazy.read(8 * KiB, 1)   // Uint8Array [ 2 ]
   */
  onMissing(origin: FaultHandler | PageSource): DemandPaging {
    return this.#page(origin, false)
  }

  /**
   * Calls a handler for pages that a memfd holds but that are not mapped yet (UFFDIO_REGISTER_MODE_MINOR, Linux 5.14). The handler can change a page
   * by returning new content; if it returns nothing, the page stays as it is.
   */
  onMinorFault(handler: FaultHandler): DemandPaging {
    if (typeof handler !== 'function') throw argumentError('handler', handler, 'a function')
    return this.#page(handler, true)
  }

  #page(origin: FaultHandler | PageSource, minor: boolean): DemandPaging {
    this.#open()
    this.#paging = makePaging(this.#region, origin, minor)
    lostWithPaging.register(this, this.#paging)
    return this.#paging
  }

  /**
   * The memory itself, not a copy. Every read of this property gives the same object. The guest may write at any moment, so a read of several bytes
   * may see a part of a write. The object is a SharedArrayBuffer if this version of Node.js can make one over foreign memory, else an ArrayBuffer.
   * @throws KvmError `unavailable` if an access could fault (hugetlb, files, memory that was protected), or if this version of Node.js makes no
   * buffer that large: Node.js 20 makes none above 4 GiB
   */
  get buffer(): ArrayBufferLike {
    this.#open()
    const buffer = this.#region.buffer()
    if (typeof buffer === 'number' && errnoName(buffer) === 'EFBIG')
      throw new KvmError('unavailable', `this version of Node.js makes no buffer of ${hex(this.size)} bytes; use read() and write()`, {
        errno: 'EFBIG'
      })
    if (typeof buffer === 'number')
      throw new KvmError(
        'unavailable',
        `${this.kind} memory has no live buffer, since an access could fault (${errnoName(buffer)}); use read() and write()`
      )
    return buffer
  }

  /**
   * Ends this handle, and unmaps the memory.
   * @throws KvmError `in-use` while a memslot or a live buffer holds the memory. The end of a `using` block ends the handle without this check
   */
  close(): void {
    if (this.#closed) return
    const { slots, buffered } = this.#region
    if (slots > 0)
      throw new KvmError(
        'in-use',
        `the mapping at ${hexRange(this.address, this.size)} is behind ${slots} memslot${slots === 1 ? '' : 's'}; delete them, or close their VM, first`,
        { slots }
      )
    if (buffered) throw new KvmError('in-use', `a live buffer over the mapping at ${hexRange(this.address, this.size)} exists; drop it first`)
    this[Symbol.dispose]()
  }

  /** Ends this handle. The memory is unmapped when the last memslot and buffer release it. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    this.#slotGone()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('Mapping', { kind: this.kind, hva: hexRange(this.address, this.size), closed: this.#closed })
  }
}
