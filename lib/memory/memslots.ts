/** The first table, GPA -> HVA: what KVM_SET_USER_MEMORY_REGION writes (api.rst 4.35). */
import BTreeModule from 'sorted-btree'
import { argumentError, checkAddress, hexRange, pageSize } from '../abi/arguments.js'
import { ioctlError, KvmError } from '../abi/errors.js'
import type { MemoryRegionChange, NativeRegion, NativeSlot, NativeVm } from '../abi/native.js'
import { KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION2 } from '../abi/requests.js'
import { UserspaceMemoryRegion2 } from '../abi/structures.js'
import { announcing, type MemslotChanged, type MemslotRow } from './changes.js'
import { Mapping } from './mapping.js'
import { checkPlacement, Memslot, type MemslotOptions, type Placement, placementOf } from './memslot.js'
import { MemslotTransaction, type Staged, type Step, stepsOf } from './transaction.js'

// A CommonJS module with a default export of its own.
const BTree = ((BTreeModule as unknown as { default?: typeof BTreeModule }).default ??
  BTreeModule) as unknown as typeof import('sorted-btree').default

const rowOf = (id: number, { gpa, size, mapping, offset }: Placement): MemslotRow => ({ id, gpa, size, hva: mapping.address + offset })

/**
 * A VM's memslots, ordered by GPA. Ids are allotted by the library and used again after a delete. Every environment that holds the VM has a table of
 * its own, which follows the changes of the others when it is next used.
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
  readonly #byId = new Map<number, Memslot>()
  readonly #argument = new UserspaceMemoryRegion2()
  // How many changes of the VM's table are in this one; another number there means that another environment made some.
  #generation = 0
  #inTransaction = false

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
    this.#follow()
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
    const id = this.#takeId()
    const region = placement.mapping.region
    const result = this.#telling('create', null, rowOf(id, placement), () => this.#set(id, placement, region))
    if (result < 0) {
      this.#vm.returnSlotId(id)
      throw this.#refused(`creating slot ${id} at gpa ${hexRange(placement.gpa, placement.size)}`, result)
    }
    return this.#enter(new Memslot(this, id, placement))
  }

  #takeId(): number {
    const id = this.#vm.takeSlotId(this.limit)
    if (id < 0) throw new KvmError('limit', `this host allows ${this.limit} memslots, and all are in use`, { limit: this.limit })
    return id
  }

  /**
   * Several changes at once, or none: while they are made no vCPU of the VM is in the guest, wherever it runs, so that the guest sees neither MMIO nor
   * old memory between. Dirty bits of slots that are rebound or resized, or that change places, are lost.
   * @param change called at once with the transaction; must not be asynchronous. What it throws comes through, and nothing is changed
   * @throws KvmError `overlap`, `argument`, `limit`, `closed`, `state` inside another transaction; or `ioctl`, and then the table is as before
   * @example
   * const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
   * vm.memslots.transaction((tx) => {
   *   tx.move(slot, 0xe000)
   *   tx.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
   * })
   */
  transaction<T>(change: (transaction: MemslotTransaction) => T): T {
    this.#open()
    if (typeof change !== 'function') throw argumentError('change', typeof change, 'a function')
    if (this.#inTransaction) throw new KvmError('state', 'a transaction is going on: make all changes in that one')
    this.#inTransaction = true
    try {
      const transaction = new MemslotTransaction(
        (placement) => new Memslot(this, -1, placement),
        (slot) => slot.table === this
      )
      const result = change(transaction)
      const staged = transaction.finish()
      if (typeof (result as { then?: unknown } | null)?.then === 'function')
        throw argumentError('change', 'asynchronous', 'a function that is done when it returns: the vCPUs wait for it')
      this.#commit(staged)
      return result
    } finally {
      this.#inTransaction = false
    }
  }

  /** The slot that covers a GPA, or undefined: an access there is MMIO. */
  lookup(gpa: number): Memslot | undefined {
    checkAddress('gpa', gpa)
    this.#follow()
    const slot = this.#byGpa.getPairOrNextLower(gpa)?.[1]
    return slot && gpa < slot.gpa + slot.size ? slot : undefined
  }

  /** By ascending GPA. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    this.#follow()
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
    this.#open()
    this.#check(placement, slot)
    const region = this.#region(placement, slot.placement)
    const result = this.#telling(did, slot.placement, rowOf(slot.id, placement), () => this.#set(slot.id, placement, region), slot.id)
    if (result < 0) throw this.#refused(`changing slot ${slot.id} to gpa ${hexRange(placement.gpa, placement.size)}`, result)
    this.#place(slot, placement)
  }

  /** @internal other memory or another size: delete and create, unseen by the guest; on failure the slot is as before */
  exchange(slot: Memslot, placement: Placement, did: MemslotChanged['did']): void {
    this.#open()
    checkPlacement(placement)
    this.#commit([{ slot, before: slot.placement, after: placement, did }])
  }

  #commit(all: readonly Staged[]): void {
    if (all.length === 0) return
    this.#open()
    const regions = new Map(all.flatMap(({ slot, before, after }) => (after ? [[slot, this.#region(after, before)] as const] : [])))
    this.#rearrange(all)
    const created = all.filter(({ before }) => before === null).map(({ slot }) => slot)
    try {
      for (const slot of created) slot.named(this.#takeId())
      this.#perform(all, regions)
    } catch (error) {
      this.#rearrange(all.map(({ slot, before, after, did }) => ({ slot, before: after, after: before, did })))
      for (const slot of created) {
        if (slot.id >= 0) this.#vm.returnSlotId(slot.id)
        slot.placed(null)
      }
      this.#generation = -1
      throw error
    }
    for (const staged of all) this.#settle(staged)
  }

  #perform(all: readonly Staged[], regions: ReadonlyMap<Memslot, NativeRegion>): void {
    const steps = stepsOf(all)
    const changes = steps.map(({ staged: { slot }, placement }) => this.#changeOf(slot, placement, regions.get(slot)))
    const describe = () =>
      all.map(({ slot, before, after, did }) => this.#changed(did, before && rowOf(slot.id, before), after && rowOf(slot.id, after)))
    let failed = 0
    const result = announcing(() => {
      const outcome = this.#vm.setMemoryRegions(changes)
      if (outcome === 0) return 0
      failed = outcome[1]
      return outcome[0]
    }, describe)
    if (result < 0) throw this.#failed(steps[failed] as Step, result)
    this.#generation += steps.length
  }

  /** The table by GPA as it is to be: refused, and as before, when slots would overlap. */
  #rearrange(all: readonly Staged[]): void {
    const placed: Staged[] = []
    for (const { before } of all) if (before) this.#byGpa.delete(before.gpa)
    try {
      for (const staged of all)
        if (staged.after) {
          this.#check(staged.after)
          this.#byGpa.set(staged.after.gpa, staged.slot)
          staged.slot.placed(staged.after)
          placed.push(staged)
        }
    } catch (error) {
      for (const { after } of placed) this.#byGpa.delete((after as Placement).gpa)
      for (const { slot, before } of all)
        if (before) {
          slot.placed(before)
          this.#byGpa.set(before.gpa, slot)
        }
      throw error
    }
  }

  #settle({ slot, before, after }: Staged): void {
    if (after === null) this.#forget(slot)
    else this.#byId.set(slot.id, slot)
    if (before && after && before.mapping !== after.mapping) before.mapping.slotGone()
  }

  #failed({ staged: { slot }, placement }: Step, result: number): KvmError {
    return this.#refused(placement ? `putting slot ${slot.id} at gpa ${hexRange(placement.gpa, placement.size)}` : `deleting slot ${slot.id}`, result)
  }

  #telling(did: MemslotChanged['did'], before: Placement | null, after: MemslotRow | null, work: () => number, id = after?.id ?? 0): number {
    return announcing(work, () => [this.#changed(did, before && rowOf(id, before), after)])
  }
  #changed(did: MemslotChanged['did'], before: MemslotRow | null, after: MemslotRow | null) {
    return { of: 'memslot' as const, did, table: this, before, after }
  }

  /** @internal */
  remove(slot: Memslot): void {
    this.#open()
    if (slot.deleted) return
    const result = this.#telling('delete', slot.placement, null, () => this.#unset(slot), slot.id)
    if (result < 0) throw this.#refused(`deleting slot ${slot.id}`, result)
    this.#forget(slot)
  }

  #enter(slot: Memslot): Memslot {
    this.#byId.set(slot.id, slot)
    this.#byGpa.set(slot.gpa, slot)
    return slot
  }

  #forget(slot: Memslot): void {
    if (this.#byGpa.get(slot.gpa) === slot) this.#byGpa.delete(slot.gpa)
    this.#byId.delete(slot.id)
    this.#vm.returnSlotId(slot.id)
    slot.placed(null)
    slot.mapping.slotGone()
  }

  /** Takes over what other environments changed, and tells of it as if it happened now. */
  #follow(): void {
    if (this.#vm.generation === this.#generation || this.closed) return
    const { generation, rows } = this.#vm.memslots()
    this.#generation = generation
    const mappings = new Map([...this.#byId.values()].map(({ mapping }) => [mapping.address, mapping]))
    const gone = new Map(this.#byId)
    const changed: { before: MemslotRow | null; after: MemslotRow | null }[] = []
    this.#byGpa.clear()
    for (const row of rows) {
      const placement = this.#placementOf(row, mappings)
      const known = gone.get(row.id)
      gone.delete(row.id)
      const [before, after] = [known ? rowOf(known.id, known.placement) : null, rowOf(row.id, placement)]
      if (before?.gpa !== after.gpa || before.size !== after.size || before.hva !== after.hva) changed.push({ before, after })
      known?.placed(placement)
      this.#enter(known ?? new Memslot(this, row.id, placement))
    }
    for (const slot of gone.values()) {
      changed.push({ before: rowOf(slot.id, slot.placement), after: null })
      this.#byId.delete(slot.id)
      slot.placed(null)
      slot.mapping.slotGone()
    }
    announcing(
      () => 0,
      () => changed.map(({ before, after }) => this.#changed('change', before, after))
    )
  }

  #placementOf({ id, gpa, size, offset, flags, region }: NativeSlot, mappings: Map<number, Mapping>): Placement {
    const mapping = mappings.get(region.address) ?? Mapping.over(region)
    mappings.set(mapping.address, mapping)
    const { guestMemfd, guestMemfdOffset = 0 } = this.#byId.get(id)?.placement ?? {}
    return { gpa, size, offset, flags, mapping, guestMemfd, guestMemfdOffset }
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
    this.#follow()
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
  #region({ mapping }: Placement, before: Placement | null): NativeRegion {
    return mapping === before?.mapping ? mapping.heldRegion : mapping.region
  }

  #set(id: number, placement: Placement, region = placement.mapping.heldRegion): number {
    return this.#apply(...this.#describe(id, placement), region, placement.offset)
  }
  #unset({ id, gpa }: Memslot): number {
    return this.#apply(...this.#describeEnd(id, gpa), null, 0)
  }
  #apply(...change: MemoryRegionChange): number {
    const result = this.#vm.setMemoryRegion(...change)
    if (result >= 0) this.#generation++
    return result
  }
  #changeOf({ id }: Memslot, placement: Placement | null, region: NativeRegion | undefined): MemoryRegionChange {
    // The native side copies what it is given, but all changes are described before the first is made.
    const [request, bytes] = placement ? this.#describe(id, placement) : this.#describeEnd(id, 0)
    return [request, bytes.slice(), placement && region ? region : null, placement?.offset ?? 0]
  }

  // The second form begins as the first, so one structure serves both.
  #describe(id: number, { gpa, size, flags, guestMemfd, guestMemfdOffset }: Placement): [number, Uint8Array] {
    const values = {
      slot: id,
      flags,
      guest_phys_addr: gpa,
      memory_size: size,
      guest_memfd: guestMemfd?.fd ?? 0,
      guest_memfd_offset: guestMemfdOffset
    }
    return [(guestMemfd ? KVM_SET_USER_MEMORY_REGION2 : KVM_SET_USER_MEMORY_REGION).number, Object.assign(this.#argument, values).bytes]
  }
  #describeEnd(id: number, gpa: number): [number, Uint8Array] {
    const values = { slot: id, flags: 0, guest_phys_addr: gpa, memory_size: 0 }
    return [KVM_SET_USER_MEMORY_REGION.number, Object.assign(this.#argument, values).bytes]
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
