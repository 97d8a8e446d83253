/** A memslot: one row of the first table. */

import { inspect } from 'node:util'
import type { Gpa, Hva } from '../abi/addresses.js'
import { argumentError, checkAddress, checkBytes, checkInteger, checkOptions, hexRange, pageSize } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../abi/generated/constants.js'
import { checkOurs, ours } from '../abi/internal.js'
import { shown } from '../abi/text.js'
import type { MemslotChanged } from './changes.js'
import type { GuestMemfd } from './guest-memfd.js'
import type { Mapping } from './mapping.js'
import { checkPlacement, flagsWith, type MemslotChange, type MemslotFlags, type Placement } from './placement.js'

/** The parts of its table that a slot needs. */
export interface MemslotOwner {
  /** Whether the VM is closed. */
  readonly closed: boolean
  /** Gives the slot another placement, computed from its present one. */
  change(slot: Memslot, did: MemslotChanged['did'], compute: (now: Placement) => Placement): void
  remove(slot: Memslot): void
  dirtyLog(slot: Memslot): Uint8Array
  clearDirtyLog(slot: Memslot, bitmap: Uint8Array, firstPage: number): void
}

/** @internal What the library knows about a slot. */
export interface SlotRecord {
  readonly table: MemslotOwner
  id: number
  placement: Placement
  /** Whether the slot was deleted. */
  gone: boolean
  /** The numbers of the change that created the slot and of the last one that changed it (native/core/memslots.h). */
  created: number
  changed: number
  /** The GPA under which the table's index has the slot, and its place in the list of changed slots; -1 if it is not there. */
  indexedAt: number
  notedAt: number
}
/** @internal */
export let makeSlot: (table: MemslotOwner, placement: Placement) => Memslot
/** @internal */
export let recordOf: (slot: Memslot) => SlotRecord

/** @internal Gives the slot a placement; null means that it is deleted. */
export function place(record: SlotRecord, placement: Placement | null, changed = 0): void {
  if (placement === null) record.gone = true
  else {
    record.placement = placement
    record.changed = changed
  }
}

/** @internal */
export function checkAlive(slot: Memslot): void {
  if (recordOf(slot).gone) throw new KvmError('closed', `memslot ${slot.id} is deleted, or its VM is closed`)
  if (slot.id < 0) throw new KvmError('state', 'this memslot is made only when the function of its transaction has returned')
}

/**
 * One row of the table. {@link Memslots.create} makes it. Changes made by another environment are seen when the table is next used. If another
 * environment changed the slot meanwhile, a change starts from the slot as it is then; if it deleted the slot, the change throws `closed`.
 */
export class Memslot {
  readonly #record: SlotRecord

  static {
    makeSlot = (table, placement) => new Memslot(ours, table, placement)
    recordOf = (slot) => slot.#record
  }

  private constructor(key: symbol, table: MemslotOwner, placement: Placement) {
    checkOurs(key, 'a Memslot', 'create() of the memslots of a Vm')
    this.#record = { table, id: -1, placement, gone: false, created: 0, changed: 0, indexedAt: -1, notedAt: -1 }
  }

  /** The kernel's slot number, or -1 while a transaction has yet to make the slot. */
  get id(): number {
    return this.#record.id
  }
  /** The GPA of the first byte. */
  get gpa(): Gpa {
    return this.#record.placement.gpa
  }
  /** The size in bytes, whole pages. */
  get size(): number {
    return this.#record.placement.size
  }
  /** The HVA of the first byte. */
  get hva(): Hva {
    return this.#record.placement.mapping.address + this.#record.placement.offset
  }
  /** The memory behind the slot. */
  get mapping(): Mapping {
    return this.#record.placement.mapping
  }
  /** The offset in the mapping at which the slot begins. */
  get offset(): number {
    return this.#record.placement.offset
  }
  /** The KVM_MEM_ bits. */
  get flags(): number {
    return this.#record.placement.flags
  }
  /** Whether guest writes are MMIO exits (KVM_MEM_READONLY). */
  get readonly(): boolean {
    return (this.#record.placement.flags & KVM_MEM_READONLY) !== 0
  }
  /** The guest_memfd for private pages, if the slot has one. */
  get guestMemfd(): GuestMemfd | undefined {
    return this.#record.placement.guestMemfd
  }
  /** Whether KVM keeps a bitmap of written pages (KVM_MEM_LOG_DIRTY_PAGES). */
  get logDirty(): boolean {
    return (this.#record.placement.flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0
  }
  /** Whether the slot was deleted, here or elsewhere, or the VM was closed. */
  get deleted(): boolean {
    return this.#record.gone || this.#record.table.closed
  }

  /**
   * Moves the slot to another GPA in one ioctl; its memory stays the same. KVM drops every translation of the slot, so a running guest may for a
   * moment see MMIO at either place. In a transaction it does not.
   * @throws KvmError `argument`, `overlap`, `closed`, `ioctl`; `state` inside a transaction, as do the changes below
   */
  move(gpa: Gpa): void {
    this.#record.table.change(this, 'move', (now) => ({ ...now, gpa: checkAddress('gpa', gpa, pageSize) }))
  }

  /**
   * Sends one KVM_SET_USER_MEMORY_REGION for this slot with these fields changed, to study how the kernel answers. It accepts another GPA and another
   * logDirty bit. It refuses another HVA, another size or another READONLY bit with EINVAL, and the slot is then as before.
   */
  change(change: MemslotChange): void {
    checkOptions('change', change, ['gpa', 'mapping', 'offset', 'size', 'flags'])
    this.#record.table.change(this, 'change', (now) => {
      const { gpa = now.gpa, mapping = now.mapping, offset = now.offset, size = now.size, flags = now.flags } = change
      checkInteger('flags', flags, 0, 0xffff_ffff)
      return checkPlacement({ ...now, gpa, mapping, offset, size, flags })
    })
  }

  /** Puts other memory at the same GPA. It deletes and creates the slot in a transaction, so a running guest sees the old memory or the new. */
  rebind(mapping: Mapping, offset = 0): void {
    this.#record.table.change(this, 'rebind', (now) => checkPlacement({ ...now, mapping, offset }))
  }

  /** Gives the slot another size over the same mapping. It deletes and creates the slot in a transaction. */
  resize(size: number): void {
    this.#record.table.change(this, 'resize', (now) => checkPlacement({ ...now, size }))
  }

  /** Turns dirty logging on or off. READONLY of a live slot cannot change (the kernel refuses it). */
  setFlags(flags: MemslotFlags): void {
    if (typeof flags === 'object' && flags !== null && 'readonly' in flags)
      throw new KvmError('argument', 'readonly of a live memslot cannot change; delete it and create it again', { argument: 'readonly' })
    checkOptions('flags', flags, ['logDirty'])
    this.#record.table.change(this, 'flags', (now) => ({ ...now, flags: flagsWith(now.flags, flags) }))
  }

  /**
   * Returns the bitmap of the pages that the guest wrote since the last call, one bit per page, and clears it: KVM_GET_DIRTY_LOG. It lacks the writes
   * that this process made through the mapping; {@link Vm.dirtyLog} has both.
   */
  getDirtyLog(): Uint8Array {
    return this.#record.table.dirtyLog(this)
  }

  /**
   * Clears the bits that are set in `bitmap`: KVM_CLEAR_DIRTY_LOG. It is for a VM whose dirty log has mode 'manual', where getDirtyLog() clears
   * nothing.
   * @param firstPage the page of the first bit, a multiple of 64
   */
  clearDirtyLog(bitmap: Uint8Array, firstPage = 0): void {
    checkAlive(this)
    checkInteger('firstPage', firstPage, 0, this.size / pageSize - 1)
    if (firstPage % 64 !== 0) throw argumentError('firstPage', firstPage, 'a multiple of 64')
    if (checkBytes('bitmap', bitmap).byteLength % 8 !== 0) throw argumentError('bitmap', bitmap, 'whole 64-bit words')
    this.#record.table.clearDirtyLog(this, bitmap, firstPage)
  }

  /** Returns the GPAs of the pages in {@link getDirtyLog}, in ascending order. */
  dirtyPages(): Gpa[] {
    const pages: Gpa[] = []
    this.getDirtyLog().forEach((byte, index) => {
      for (let bit = 0; byte >> bit; bit++) if ((byte >> bit) & 1) pages.push(this.gpa + (index * 8 + bit) * pageSize)
    })
    return pages
  }

  /** Removes the slot. The guest's accesses there become MMIO exits. If the slot is already deleted, here or elsewhere, the call does nothing. */
  delete(): void {
    if (!this.#record.gone) this.#record.table.remove(this)
  }

  /** Returns a plain object with addresses as numbers. */
  toJSON() {
    const { id, gpa, size, hva, readonly, logDirty } = this
    return { id, gpa, size, hva, readonly, logDirty }
  }

  /** Returns one line: `slot 0: gpa 0xa000-0xb000 -> hva 0x7f..`. */
  toString(): string {
    return `slot ${this.id}: gpa ${hexRange(this.gpa, this.size)} -> hva ${hexRange(this.hva, this.size)}${this.readonly ? ' readonly' : ''}${this.logDirty ? ' dirty-logged' : ''}${this.guestMemfd ? ' guest_memfd' : ''}`
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    const { id, gpa, size, hva, readonly, logDirty, guestMemfd, deleted } = this
    return shown('Memslot', {
      id,
      gpa: hexRange(gpa, size),
      hva: hexRange(hva, size),
      readonly,
      logDirty,
      guestMemfd: guestMemfd !== undefined,
      deleted
    })
  }
}
