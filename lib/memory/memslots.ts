/** The first table, GPA -> HVA: what KVM_SET_USER_MEMORY_REGION writes (api.rst 4.35). */
import BTreeModule from 'sorted-btree'
import { argumentError, checkAddress, checkOptions, checkSize, hex, hexRange, pageSize } from '../abi/arguments.js'
import { KvmError, ioctlError } from '../abi/errors.js'
import type { NativeVm } from '../abi/native.js'
import { Mapping } from './mapping.js'

// A CommonJS module with a default export of its own.
const BTree = ((BTreeModule as unknown as { default?: typeof BTreeModule }).default ?? BTreeModule) as unknown as typeof import('sorted-btree').default

const ioctl = 'KVM_SET_USER_MEMORY_REGION'
const logDirtyFlag = 1
const readonlyFlag = 2

export interface MemslotFlags {
  /** Keep a bitmap of the pages the guest wrote (KVM_MEM_LOG_DIRTY_PAGES). */
  logDirty?: boolean
}
export interface MemslotOptions extends MemslotFlags {
  /** Where the guest sees it; a multiple of 4 KiB. */
  gpa: number
  mapping: Mapping
  /** Where in the mapping it begins; a multiple of 4 KiB, 0 if absent. */
  offset?: number
  /** Bytes; the rest of the mapping if absent. */
  size?: number
  /** Guest writes become MMIO exits (KVM_MEM_READONLY). */
  readonly?: boolean
}

interface Placement {
  gpa: number
  mapping: Mapping
  offset: number
  size: number
  flags: number
}

function checkPlacement({ gpa, mapping, offset, size }: Placement): void {
  checkAddress('gpa', gpa, pageSize)
  if (!(mapping instanceof Mapping)) throw argumentError('mapping', typeof mapping, 'a Mapping')
  checkAddress('offset', offset, pageSize)
  if (offset >= mapping.size) throw argumentError('offset', offset, `below the mapping's size, ${hex(mapping.size)}`)
  checkSize('size', size, pageSize)
  if (offset + size > mapping.size)
    throw new KvmError('argument', `size ${hex(size)} at offset ${hex(offset)} reaches past the mapping's end at ${hex(mapping.size)}`, { argument: 'size' })
}

/** One row of the table. Made by {@link Memslots.create}. */
export class Memslot {
  /** The kernel's slot number. */
  readonly id: number
  readonly #table: Memslots
  #placement: Placement
  #deleted = false

  /** @internal */
  constructor(table: Memslots, id: number, placement: Placement) {
    this.#table = table
    this.id = id
    this.#placement = placement
  }

  get gpa(): number {
    return this.#placement.gpa
  }
  get size(): number {
    return this.#placement.size
  }
  /** The HVA of the first byte. */
  get hva(): number {
    return this.#placement.mapping.address + this.#placement.offset
  }
  get mapping(): Mapping {
    return this.#placement.mapping
  }
  /** Where in the mapping the slot begins. */
  get offset(): number {
    return this.#placement.offset
  }
  get readonly(): boolean {
    return (this.#placement.flags & readonlyFlag) !== 0
  }
  get logDirty(): boolean {
    return (this.#placement.flags & logDirtyFlag) !== 0
  }
  get deleted(): boolean {
    return this.#deleted || this.#table.closed
  }
  /** @internal */
  get placement(): Placement {
    return this.#placement
  }
  /** @internal */
  placed(placement: Placement | null): void {
    if (placement === null) this.#deleted = true
    else this.#placement = placement
  }

  #alive(): void {
    if (this.deleted) throw new KvmError('closed', `memslot ${this.id} is deleted, or its VM is closed`)
  }

  /** The same memory at another GPA, in one ioctl. KVM drops every translation of the slot. */
  move(gpa: number): void {
    this.#alive()
    this.#table.replace(this, { ...this.#placement, gpa })
  }

  /** Other memory at the same GPA: delete and create, between which a running guest sees MMIO. */
  rebind(mapping: Mapping, offset = 0): void {
    this.#alive()
    this.#table.exchange(this, { ...this.#placement, mapping, offset })
  }

  /** Another size over the same mapping: delete and create. */
  resize(size: number): void {
    this.#alive()
    this.#table.exchange(this, { ...this.#placement, size })
  }

  /** Dirty logging on or off. READONLY of a live slot cannot change (the kernel refuses it). */
  setFlags(flags: MemslotFlags): void {
    this.#alive()
    if ('readonly' in flags) throw new KvmError('argument', 'readonly of a live memslot cannot change; delete it and create it again', { argument: 'readonly' })
    checkOptions('flags', flags, ['logDirty'])
    const kept = this.#placement.flags & ~logDirtyFlag
    this.#table.replace(this, { ...this.#placement, flags: kept | (flags.logDirty ? logDirtyFlag : 0) })
  }

  /**
   * The bitmap of pages that the guest wrote since the last call, one bit a page, and clears it: KVM_GET_DIRTY_LOG.
   * Writes made by this process through the mapping are not in it.
   */
  getDirtyLog(): Uint8Array {
    this.#alive()
    return this.#table.dirtyLog(this)
  }

  /** The GPAs of the pages in {@link getDirtyLog}, ascending. */
  dirtyPages(): number[] {
    const pages: number[] = []
    this.getDirtyLog().forEach((byte, index) => {
      for (let bit = 0; byte >> bit; bit++) if ((byte >> bit) & 1) pages.push(this.gpa + (index * 8 + bit) * pageSize)
    })
    return pages
  }

  /** Removes the slot; the guest's accesses there become MMIO exits. A second call does nothing. */
  delete(): void {
    if (!this.deleted) this.#table.remove(this)
  }

  toJSON() {
    const { id, gpa, size, hva, readonly, logDirty } = this
    return { id, gpa, size, hva, readonly, logDirty }
  }

  toString(): string {
    return `slot ${this.id}: gpa ${hexRange(this.gpa, this.size)} -> hva ${hexRange(this.hva, this.size)}${this.readonly ? ' readonly' : ''}${this.logDirty ? ' dirty-logged' : ''}`
  }
}

/**
 * A VM's memslots, ordered by GPA. Ids are allotted here and used again after a delete.
 * @example
 * const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
 * slot.move(0xe000)
 * vm.memslots.lookup(0xe123)?.id === slot.id   // true
 */
export class Memslots implements Iterable<Memslot> {
  /** How many the host allows: KVM_CAP_NR_MEMSLOTS. */
  readonly limit: number
  readonly #vm: NativeVm
  readonly #byGpa = new BTree<number, Memslot>()
  readonly #freedIds: number[] = []
  #nextId = 0

  /** @internal */
  constructor(vm: NativeVm, limit: number) {
    this.#vm = vm
    this.limit = limit
  }

  get closed(): boolean {
    return this.#vm.fd < 0
  }
  get length(): number {
    return this.#byGpa.size
  }

  /**
   * Gives the guest memory.
   * @throws KvmError `argument`, `overlap` (naming both ranges), `limit`, `closed`, or `ioctl`
   */
  create(options: MemslotOptions): Memslot {
    this.#open()
    checkOptions('options', options, ['gpa', 'mapping', 'offset', 'size', 'readonly', 'logDirty'])
    const { gpa, mapping, offset = 0, readonly = false, logDirty = false } = options
    if (!(mapping instanceof Mapping)) throw argumentError('mapping', typeof mapping, 'a Mapping')
    const region = mapping.region
    const placement = { gpa, mapping, offset, size: options.size ?? mapping.size - offset, flags: (readonly ? readonlyFlag : 0) | (logDirty ? logDirtyFlag : 0) }
    this.#check(placement)
    const id = this.#freedIds.pop() ?? this.#nextId
    if (id >= this.limit) throw new KvmError('limit', `this host allows ${this.limit} memslots, and all are in use`, { limit: this.limit })
    const result = this.#set(id, placement, region)
    if (result < 0) {
      if (id !== this.#nextId) this.#freedIds.push(id)
      throw this.#refused(`creating slot ${id} at gpa ${hexRange(gpa, placement.size)}`, result)
    }
    if (id === this.#nextId) this.#nextId++
    const slot = new Memslot(this, id, placement)
    this.#byGpa.set(gpa, slot)
    return slot
  }

  /** The slot that covers a GPA, or undefined: an access there is MMIO. */
  lookup(gpa: number): Memslot | undefined {
    checkAddress('gpa', gpa)
    const slot = this.#byGpa.getPairOrNextLower(gpa)?.[1]
    return slot && gpa < slot.gpa + slot.size ? slot : undefined
  }

  /** By ascending GPA. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    return this.#byGpa.values()
  }

  /** The table as text, a line each. */
  toString(): string {
    return [...this].join('\n')
  }
  toJSON() {
    return [...this].map((slot) => slot.toJSON())
  }

  /** @internal another GPA or other flags: one ioctl */
  replace(slot: Memslot, placement: Placement): void {
    this.#check(placement, slot)
    const result = this.#set(slot.id, placement)
    if (result < 0) throw this.#refused(`changing slot ${slot.id} to gpa ${hexRange(placement.gpa, placement.size)}`, result)
    this.#place(slot, placement)
  }

  /** @internal other memory or another size: delete and create; on failure the slot is as before */
  exchange(slot: Memslot, placement: Placement): void {
    this.#check(placement, slot)
    const { placement: before } = slot
    const region = placement.mapping === before.mapping ? before.mapping.heldRegion : placement.mapping.region
    const removed = this.#unset(slot)
    if (removed < 0) throw this.#refused(`deleting slot ${slot.id}`, removed)
    const result = this.#set(slot.id, placement, region)
    if (result < 0) {
      this.#set(slot.id, before)
      throw this.#refused(`creating slot ${slot.id} again`, result)
    }
    this.#place(slot, placement)
  }

  /** @internal */
  remove(slot: Memslot): void {
    const result = this.#unset(slot)
    if (result < 0) throw this.#refused(`deleting slot ${slot.id}`, result)
    this.#byGpa.delete(slot.gpa)
    this.#freedIds.push(slot.id)
    slot.placed(null)
    slot.mapping.slotGone()
  }

  /** @internal the VM is closed: its slots hold nothing any more */
  released(): void {
    for (const slot of this) slot.mapping.slotGone()
  }

  /** @internal */
  dirtyLog(slot: Memslot): Uint8Array {
    if (!slot.logDirty) throw new KvmError('argument', `slot ${slot.id} keeps no dirty log; setFlags({ logDirty: true }) first`, { argument: 'logDirty' })
    const bitmap = new Uint8Array(Math.ceil(slot.size / pageSize / 64) * 8)
    const result = this.#vm.getDirtyLog(slot.id, bitmap)
    if (result < 0) throw ioctlError('KVM_GET_DIRTY_LOG', result, `reading the dirty log of slot ${slot.id}`)
    return bitmap
  }

  #open(): void {
    if (this.closed) throw new KvmError('closed', 'the VM is closed')
  }

  #check(placement: Placement, itself?: Memslot): void {
    checkPlacement(placement)
    const { gpa, size } = placement
    const below = this.#byGpa.nextLowerPair(gpa + size)?.[1]
    const other = below === itself && below !== undefined ? this.#byGpa.nextLowerPair(below.gpa)?.[1] : below
    const hit = other && other.gpa + other.size > gpa ? other : undefined
    if (hit)
      throw new KvmError('overlap', `gpa ${hexRange(gpa, size)} overlaps slot ${hit.id} at gpa ${hexRange(hit.gpa, hit.size)}`, {
        errno: 'EEXIST', asked: { gpa, size }, present: { id: hit.id, gpa: hit.gpa, size: hit.size }
      })
  }

  #set(id: number, { gpa, size, flags, mapping, offset }: Placement, region = mapping.heldRegion): number {
    return this.#vm.setMemoryRegion(id, flags, gpa, size, region, offset)
  }
  #unset({ id, placement: { flags, gpa } }: Memslot): number {
    return this.#vm.setMemoryRegion(id, flags, gpa, 0, null, 0)
  }

  #place(slot: Memslot, placement: Placement): void {
    if (slot.gpa !== placement.gpa) {
      this.#byGpa.delete(slot.gpa)
      this.#byGpa.set(placement.gpa, slot)
    }
    const { mapping: before } = slot
    slot.placed(placement)
    if (before !== placement.mapping) before.slotGone()
  }

  #refused(asked: string, result: number): KvmError {
    return ioctlError(ioctl, result, asked, 'the host may limit guest-physical addresses, or lack the flag')
  }
}
