/** The first table, GPA -> HVA: what KVM_SET_USER_MEMORY_REGION writes (api.rst 4.35). */
import BTreeModule from 'sorted-btree'
import { checkAddress, hexRange, pageSize } from '../abi/arguments.js'
import { ioctlError, KvmError } from '../abi/errors.js'
import type { NativeRegion, NativeVm } from '../abi/native.js'
import { KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2 } from '../abi/requests.js'
import { UserspaceMemoryRegion2 } from '../abi/structures.js'
import { announcing, type MemslotChanged, type MemslotRow } from './changes.js'
import { checkPlacement, Memslot, type MemslotOptions, type Placement, placementOf } from './memslot.js'

// A CommonJS module with a default export of its own.
const BTree = ((BTreeModule as unknown as { default?: typeof BTreeModule }).default ??
  BTreeModule) as unknown as typeof import('sorted-btree').default

const rowOf = (id: number, { gpa, size, mapping, offset }: Placement): MemslotRow => ({ id, gpa, size, hva: mapping.address + offset })

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
  readonly #argument = new UserspaceMemoryRegion2()
  readonly #freedIds: number[] = []
  #nextId = 0

  /** @internal */
  constructor(vm: NativeVm, limit: number) {
    this.#vm = vm
    this.limit = limit
  }

  /** Whether the VM is closed. */
  get closed(): boolean {
    return this.#vm.fd < 0
  }
  /** How many there are. */
  get length(): number {
    return this.#byGpa.size
  }

  /**
   * Gives the guest memory.
   * @throws KvmError `argument`, `overlap` (naming both ranges), `limit`, `closed`, or `ioctl`
   */
  create(options: MemslotOptions): Memslot {
    this.#open()
    const placement = placementOf(options)
    this.#check(placement)
    const id = this.#freedIds.pop() ?? this.#nextId
    if (id >= this.limit) throw new KvmError('limit', `this host allows ${this.limit} memslots, and all are in use`, { limit: this.limit })
    const region = placement.mapping.region
    const result = this.#telling('create', null, rowOf(id, placement), () => this.#set(id, placement, region))
    if (result < 0) {
      if (id !== this.#nextId) this.#freedIds.push(id)
      throw this.#refused(`creating slot ${id} at gpa ${hexRange(placement.gpa, placement.size)}`, result)
    }
    if (id === this.#nextId) this.#nextId++
    const slot = new Memslot(this, id, placement)
    this.#byGpa.set(placement.gpa, slot)
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
  /** Plain objects, by ascending GPA. */
  toJSON() {
    return [...this].map((slot) => slot.toJSON())
  }

  /** @internal another GPA or other flags: one ioctl */
  replace(slot: Memslot, placement: Placement, did: MemslotChanged['did']): void {
    this.#check(placement, slot)
    const region = this.#region(placement, slot)
    const result = this.#telling(did, slot.placement, rowOf(slot.id, placement), () => this.#set(slot.id, placement, region), slot.id)
    if (result < 0) throw this.#refused(`changing slot ${slot.id} to gpa ${hexRange(placement.gpa, placement.size)}`, result)
    this.#place(slot, placement)
  }

  /** @internal other memory or another size: delete and create; on failure the slot is as before */
  exchange(slot: Memslot, placement: Placement, did: MemslotChanged['did']): void {
    this.#check(placement, slot)
    const region = this.#region(placement, slot)
    this.#telling(did, slot.placement, rowOf(slot.id, placement), () => this.#recreate(slot, placement, region), slot.id)
    this.#place(slot, placement)
  }

  #recreate(slot: Memslot, placement: Placement, region: NativeRegion): number {
    const { placement: before } = slot
    const removed = this.#unset(slot)
    if (removed < 0) throw this.#refused(`deleting slot ${slot.id}`, removed)
    const result = this.#set(slot.id, placement, region)
    if (result < 0) {
      // The kernel took these very values before; should it refuse them now, the slot is gone, and says so.
      if (this.#set(slot.id, before) < 0) this.#forget(slot)
      throw this.#refused(`creating slot ${slot.id} again`, result)
    }
    return result
  }

  #telling(did: MemslotChanged['did'], before: Placement | null, after: MemslotRow | null, work: () => number, id = after?.id ?? 0): number {
    return announcing(work, () => ({ of: 'memslot', did, table: this, before: before && rowOf(id, before), after }))
  }

  /** @internal */
  remove(slot: Memslot): void {
    const result = this.#telling('delete', slot.placement, null, () => this.#unset(slot), slot.id)
    if (result < 0) throw this.#refused(`deleting slot ${slot.id}`, result)
    this.#forget(slot)
  }

  #forget(slot: Memslot): void {
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
    if (!slot.logDirty)
      throw new KvmError('argument', `slot ${slot.id} keeps no dirty log; setFlags({ logDirty: true }) first`, { argument: 'logDirty' })
    const bitmap = new Uint8Array(Math.ceil(slot.size / pageSize / 64) * 8)
    const result = this.#vm.getDirtyLog(slot.id, bitmap)
    if (result < 0)
      throw ioctlError('KVM_GET_DIRTY_LOG', result, `reading the dirty log of slot ${slot.id}`, 'ENXIO: this VM keeps dirty rings instead')
    return bitmap
  }

  /** @internal */
  clearDirtyLog(slot: Memslot, bitmap: Uint8Array, firstPage: number): void {
    const pages = Math.min(bitmap.byteLength * 8, slot.size / pageSize - firstPage)
    const result = this.#vm.clearDirtyLog(slot.id, firstPage, pages, bitmap)
    if (result < 0) throw ioctlError('KVM_CLEAR_DIRTY_LOG', result, `clearing the dirty log of slot ${slot.id}`)
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
        errno: 'EEXIST',
        asked: { gpa, size },
        present: { id: hit.id, gpa: hit.gpa, size: hit.size }
      })
  }

  // A slot may outlive the handle of its mapping; other memory needs an open one.
  #region({ mapping }: Placement, slot: Memslot): NativeRegion {
    return mapping === slot.mapping ? mapping.heldRegion : mapping.region
  }

  #set(id: number, { gpa, size, flags, mapping, offset, guestMemfd, guestMemfdOffset }: Placement, region = mapping.heldRegion): number {
    const values = {
      slot: id,
      flags,
      guest_phys_addr: gpa,
      memory_size: size,
      guest_memfd: guestMemfd?.fd ?? 0,
      guest_memfd_offset: guestMemfdOffset
    }
    // The second form begins as the first, so one structure serves both.
    return this.#vm.setMemoryRegion(
      (guestMemfd ? KVM_SET_USER_MEMORY_REGION2 : KVM_SET_USER_MEMORY_REGION).number,
      Object.assign(this.#argument, values).bytes,
      region,
      offset
    )
  }
  #unset({ id, gpa }: Memslot): number {
    const values = { slot: id, flags: 0, guest_phys_addr: gpa, memory_size: 0 }
    return this.#vm.setMemoryRegion(KVM_SET_USER_MEMORY_REGION.number, Object.assign(this.#argument, values).bytes, null, 0)
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
    return ioctlError(
      KVM_SET_USER_MEMORY_REGION.name,
      result,
      asked,
      'the host may limit guest-physical addresses, lack the flag, or refuse the change on a live slot'
    )
  }
}
