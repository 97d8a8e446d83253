/** Host memory for guests: the HVA side of a memslot. */

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
import * as constants from '../abi/generated/constants.js'
import { checkOurs, ours } from '../abi/internal.js'
import { type NativeRegion, native, type RegionOptions } from '../abi/native.js'
import { shown } from '../abi/text.js'
import { openBackingFile } from './backing-file.js'
import { announcing } from './changes.js'
import { type DemandPaging, dropPaging, type FaultHandler, makePaging, type PageSource, providePages } from './demand-paging.js'
import { memoryError, notServedHere, unmappedError } from './mapping-refusal.js'

/** madvise(2) by name. */
const adviceNumbers = {
  normal: constants.MADV_NORMAL,
  random: constants.MADV_RANDOM,
  sequential: constants.MADV_SEQUENTIAL,
  willneed: constants.MADV_WILLNEED,
  dontneed: constants.MADV_DONTNEED,
  free: constants.MADV_FREE,
  remove: constants.MADV_REMOVE,
  mergeable: constants.MADV_MERGEABLE,
  unmergeable: constants.MADV_UNMERGEABLE,
  hugepage: constants.MADV_HUGEPAGE,
  nohugepage: constants.MADV_NOHUGEPAGE,
  cold: constants.MADV_COLD,
  pageout: constants.MADV_PAGEOUT,
  'populate-read': constants.MADV_POPULATE_READ,
  'populate-write': constants.MADV_POPULATE_WRITE,
  collapse: constants.MADV_COLLAPSE
} as const
/** Advice of madvise(2), by name. */
export type Advice = keyof typeof adviceNumbers

const protections = { none: 0, r: 1, rw: 3, rx: 5, rwx: 7 } as const
/** Protections of mprotect(2), by name. */
export type Protection = keyof typeof protections

/** Of every kind of mapping. */
export interface MappingOptions {
  /** Fault every page in at once, as huge ones where `hugePages` asks for them; an error, and nothing mapped, where that fails. */
  populate?: boolean
  /** Transparent huge pages: true asks for them, false forbids them (MADV_HUGEPAGE, MADV_NOHUGEPAGE). */
  hugePages?: boolean
  /** The HVA wished for, page-aligned; a hint unless `fixed`. */
  address?: Hva
  /** Exactly at `address`, or an error; never over memory that is mapped already (MAP_FIXED_NOREPLACE). */
  fixed?: boolean
}
/** Of {@link Mapping.anonymous}. */
export interface AnonymousOptions extends MappingOptions {
  /**
   * Promises no memory for the mapping (MAP_NORESERVE), so that it may be larger than all memory and swap; under vm.overcommit_memory=2 the
   * kernel ignores that. Who touches more than there is, a guest as well, has the kernel end a process for want of memory.
   */
  noReserve?: boolean
}
/** Of {@link Mapping.hugetlb}. */
export interface HugetlbOptions extends MappingOptions {
  /** Bytes in one huge page: 2 MiB (the default) or 1 GiB. */
  hugePageSize?: number
}
/** Of {@link Mapping.file}. */
export interface FileOptions extends MappingOptions {
  /** Byte in the file at which the mapping begins, page-aligned. */
  offset?: number
  /** Writes go to the file (MAP_SHARED); otherwise they stay private to this process. */
  shared?: boolean
  /** Only reads: the file is opened and mapped read-only. */
  readonly?: boolean
}

/** @internal */
export const commonOptions = ['populate', 'hugePages', 'address', 'fixed'] as const

// Who serves pages is held by the event loop, and must not hold the mapping.
const lostWithPaging = new FinalizationRegistry<DemandPaging>((paging) => dropPaging(paging))

/** @internal memory that another environment mapped */
export let mappingOver: (region: NativeRegion) => Mapping
/** @internal the pages of an open file, which the mapping holds by a descriptor of its own */
export let mapDescriptor: (request: RegionOptions, options: MappingOptions) => Mapping
/** @internal what a new memslot hands to the VM */
export let regionOf: (mapping: Mapping) => NativeRegion
/** @internal the same for a memslot that holds the memory already, even past the handle's end */
export let heldRegionOf: (mapping: Mapping) => NativeRegion
/** @internal a memslot let go: a handle that ended while slots held the memory lets go after the last */
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
  /** Bytes, whole pages. */
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
    // Root may map the page at 0: no buffer can lie there, and what reads through a null pointer would find it.
    if (fixed && address === 0) throw argumentError('address', address, 'above 0')
    if (fixed && address === undefined) throw argumentError('fixed', fixed, 'given together with address')
    const advice = hugePages === undefined ? undefined : adviceNumbers[hugePages ? 'hugepage' : 'nohugepage']
    const asked = { ...request, fixed, populate, ...(advice !== undefined && { advice }), ...(address !== undefined && { address }) }
    const region = making(() => native.map(asked))
    if (typeof region === 'number') throw unmappedError(asked, region)
    return new Mapping(ours, region)
  }

  /**
   * Private zeroed memory: mmap(MAP_ANONYMOUS). Aligned to 2 MiB when at least that large, so that huge pages can form.
   * @param size bytes, a multiple of 4 KiB
   * @throws KvmError `argument` or `memory`
   */
  static anonymous(size: number, options: AnonymousOptions = {}): Mapping {
    const { noReserve = false } = checkOptions('options', options, [...commonOptions, 'noReserve'])
    checkBoolean('noReserve', noReserve)
    return Mapping.#map({ kind: 'anonymous', size: checkSize('size', size, pageSize), noReserve }, options)
  }

  /** Shared memory without a name: memfd_create(2), sealed against shrinking. */
  static memfd(size: number, options: MappingOptions = {}): Mapping {
    checkOptions('options', options, commonOptions)
    return Mapping.#map({ kind: 'memfd', size: checkSize('size', size, pageSize) }, options)
  }

  /** Pages of the huge page pool (Documentation/admin-guide/mm/hugetlbpage.rst). */
  static hugetlb(size: number, options: HugetlbOptions = {}): Mapping {
    const { hugePageSize = 2 * MiB } = checkOptions('options', options, [...commonOptions, 'hugePageSize'])
    checkInteger('hugePageSize', hugePageSize, pageSize)
    if (!Number.isInteger(Math.log2(hugePageSize))) throw argumentError('hugePageSize', hugePageSize, 'a power of two')
    return Mapping.#map({ kind: 'hugetlb', size: checkSize('size', size, hugePageSize), hugePageSize }, options)
  }

  /** A file's bytes. Reading past the file's end is an error here, and EFAULT or MMIO for a guest. */
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
  /** Whether the handle ended; memslots and buffers may hold the memory longer. */
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

  // Pages that this thread itself serves are asked for first: a wait for them here would be one without end.
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

  /** A copy of `length` bytes from `offset`. */
  read(offset: number, length: number): Uint8Array {
    this.#range(offset, length)
    const bytes = zeroed(length)
    this.#access('read', offset, length, () => this.#region.read(offset, bytes))
    return bytes
  }

  /** Copies bytes from `offset` into `target`: no allocation. */
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
   * Puts other pages under the same HVA: zeroed, or holding `content`. In one step, so that a running guest sees the old pages
   * or the new. KVM's MMU notifier drops what the second stage held (Documentation/virt/kvm/locking.rst).
   *
   * Another page means another frame: for each page that is there a new one is brought in before the old one goes, so that for a moment
   * both are held; where the host has no page there is none afterwards. Of a file it is a new mapping of the same file, whose unwritten or
   * shared pages are the same frames. `advise('dontneed')` holds nothing twice: the next touch brings a page, maybe the same frame.
   * @throws KvmError `memory`, and nothing changed, when there is not enough for both
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

  /** madvise(2): `dontneed` gives pages back, `hugepage` asks for huge ones, `collapse` makes them now. */
  advise(advice: Advice, offset = 0, length = restAfter(offset, this.size)): void {
    checkOneOf('advice', advice, Object.keys(adviceNumbers) as Advice[])
    this.#range(offset, length, pageSize)
    this.#change(`advise(${advice})`, offset, length, () => this.#region.advise(offset, length, adviceNumbers[advice]))
  }

  /**
   * Gives pages back to a memfd, or to a shared file: fallocate(2) with FALLOC_FL_PUNCH_HOLE. They read as zeros after, for whoever else maps
   * them, too.
   * @throws KvmError `memory` for other kinds, and for a memfd of which a part was remapped; `advise('remove')` serves there
   */
  punchHole(offset = 0, length = restAfter(offset, this.size)): void {
    this.#range(offset, length, pageSize)
    this.#change('punchHole', offset, length, () => this.#region.punchHole(offset, length))
  }

  /** mprotect(2). Refused while a live buffer exists, unless the memory stays readable and writable. */
  protect(protection: Protection, offset = 0, length = restAfter(offset, this.size)): void {
    checkOneOf('protection', protection, Object.keys(protections) as Protection[])
    this.#range(offset, length, pageSize)
    this.#change(`protect(${protection})`, offset, length, () => this.#region.protect(offset, length, protections[protection]))
  }

  /**
   * Serves the pages that are not there when a guest touches them: from a file or bytes by a native thread, or by a handler in JavaScript,
   * called in the event loop of this thread. For anonymous memory and memfds without a live buffer. What was written before stays.
   * @throws KvmError `permission` where the process may not serve faults that happen in the kernel, `unavailable`, `in-use`
   * @example
   * using lazy = Mapping.anonymous(2 * MiB)
   * using paging = lazy.onMissing(({ offset }) => new Uint8Array(4 * KiB).fill(offset / 4096))
   * lazy.read(8 * KiB, 1)   // Uint8Array [ 2 ]
   */
  onMissing(origin: FaultHandler | PageSource): DemandPaging {
    return this.#page(origin, false)
  }

  /**
   * Calls a handler for pages that a memfd holds but that are not mapped yet (UFFDIO_REGISTER_MODE_MINOR, Linux 5.14): its last chance to
   * change them, by what it returns. Nothing returned leaves them as they are.
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
   * The memory itself, not a copy; the same object at each call. The guest writes it at any moment: reads may tear.
   * A SharedArrayBuffer where this Node can make one of foreign memory, else an ArrayBuffer.
   * @throws KvmError `unavailable` where an access could fault: hugetlb, files, memory that was protected; and where this Node makes no
   * buffer that large: Node 20 makes none above 4 GiB
   */
  get buffer(): ArrayBufferLike {
    this.#open()
    const buffer = this.#region.buffer()
    if (typeof buffer === 'number' && errnoName(buffer) === 'EFBIG')
      throw new KvmError('unavailable', `this Node makes no buffer of ${hex(this.size)} bytes; use read() and write()`, { errno: 'EFBIG' })
    if (typeof buffer === 'number')
      throw new KvmError('unavailable', `no live buffer over ${this.kind} memory that can fault (${errnoName(buffer)}); use read() and write()`)
    return buffer
  }

  /**
   * Ends this handle, and unmaps.
   * @throws KvmError `in-use` while a memslot or a live buffer holds the memory; leaving a `using` block lets go without that check
   */
  close(): void {
    if (this.#closed) return
    const { slots, buffered } = this.#region
    if (slots > 0)
      throw new KvmError(
        'in-use',
        `the mapping at ${hexRange(this.address, this.size)} stands behind ${slots} memslot${slots === 1 ? '' : 's'}; delete them, or close their VM, first`,
        { slots }
      )
    if (buffered) throw new KvmError('in-use', `a live buffer over the mapping at ${hexRange(this.address, this.size)} exists; drop it first`)
    this[Symbol.dispose]()
  }

  /** Ends this handle; the memory goes when the last memslot and buffer that hold it go. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    this.#slotGone()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('Mapping', { kind: this.kind, hva: hexRange(this.address, this.size), closed: this.#closed })
  }
}
