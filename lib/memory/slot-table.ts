/** The first table, from GPA to HVA, which KVM_SET_USER_MEMORY_REGION writes (api.rst 4.35). */
import type { Gpa } from '../abi/addresses.js'
import { argumentError, checkAddress, pageSize } from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { zeroed } from '../abi/exhausted.js'
import { capabilities } from '../abi/generated/capabilities.js'
import { KVM_CHECK_EXTENSION, KVM_CLEAR_DIRTY_LOG, KVM_GET_DIRTY_LOG } from '../abi/generated/requests.js'
import type { Causes, Handle } from '../abi/ioctls.js'
import type { NativeRegion, NativeVm } from '../abi/native.js'
import { announcing, isWatched, type MemslotChanged, type MemslotRow } from './changes.js'
import { ownerOf } from './guest-memfd.js'
import { heldRegionOf, type Mapping, mappingOver, slotGone } from './mapping.js'
import { checkAlive, type Memslot, type MemslotOwner, makeSlot, place, recordOf } from './memslot.js'
import { MemslotIndex } from './memslot-index.js'
import { conflictError, overlapError, overtaken, type Refusal, refusalIn, refusedError } from './memslot-refusal.js'
import { type ChangedRow, putChange, recordLength, rowsOf } from './memslot-words.js'
import { checkPlacement, type MemslotOptions, type Placement, placementOf } from './placement.js'
import { endTransaction, type MemslotTransaction, makeTransaction, type Staged, stage, stagedIn } from './transaction.js'

const rowOf = (id: number, { gpa, size, mapping, offset }: Placement): MemslotRow => ({ id, gpa, size, hva: mapping.address + offset })

// The kernel gives ENXIO for this reason only (virt/kvm/kvm_main.c).
const bitmapCauses: Causes = { ENXIO: 'this VM keeps dirty rings instead' }

/** The changes of which a running guest must not see an intermediate state. */
const together: ReadonlySet<MemslotChanged['did']> = new Set(['rebind', 'resize'])

/** The table behind {@link Memslots}, with the parts that only the library uses: it changes slots, reads their dirty logs, and releases them. */
export class SlotTable implements MemslotOwner, Iterable<Memslot> {
  readonly limit: number
  readonly #vm: NativeVm
  readonly #handle: Handle
  readonly #words: Float64Array
  readonly #index = new MemslotIndex()
  // An array, because ids are dense, and a Map of thousands is rebuilt every few hundred deletions.
  readonly #byId: (Memslot | undefined)[] = []
  #length = 0
  // This table includes all changes of the VM's table up to this one; -1 after close().
  #generation = 0
  #inTransaction = false

  constructor(vm: NativeVm, handle: Handle, limit: number) {
    this.#vm = vm
    this.#handle = handle
    this.#words = new Float64Array(vm.memslotWords)
    this.limit = limit
  }

  /** Whether the VM is closed. */
  get closed(): boolean {
    return this.#handle.closed
  }
  /** How many memslots there are. */
  get length(): number {
    this.#follow()
    return this.#length
  }

  create(options: MemslotOptions): Memslot {
    this.refuseInTransaction()
    const slot = makeSlot(this, checkPlacement(placementOf(options)))
    const refusal = this.#make(slot, 'create', null, recordOf(slot).placement)
    if (refusal) throw this.#refused(slot, null, recordOf(slot).placement, refusal)
    return slot
  }

  transaction<T>(change: (transaction: MemslotTransaction) => T): T {
    this.#open()
    if (typeof change !== 'function') throw argumentError('change', change, 'a function')
    this.refuseInTransaction()
    this.#inTransaction = true
    const transaction = makeTransaction(this)
    try {
      const result = change(transaction)
      if (typeof (result as { then?: unknown } | null)?.then === 'function')
        throw argumentError('change', 'asynchronous', 'a function that is done when it returns: the vCPUs wait for it')
      this.#commit(stagedIn(transaction))
      return result
    } finally {
      endTransaction(transaction)
      this.#inTransaction = false
    }
  }

  /** Refuses a change of slots outside the object that collects the changes. */
  refuseInTransaction(): void {
    if (this.#inTransaction)
      throw new KvmError('state', 'a transaction is in progress: make all changes through the object that its function gets, or after it')
  }

  lookup(gpa: Gpa): Memslot | undefined {
    checkAddress('gpa', gpa)
    this.#follow()
    const slot = this.#index.atOrBelow(gpa)
    return slot && gpa < slot.gpa + slot.size ? slot : undefined
  }

  /** Iterates over the slots in ascending order of GPA, as they are when the iteration begins. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    this.#follow()
    return this.#index.all()[Symbol.iterator]()
  }

  /**
   * Gives a slot another placement: in one ioctl, or in several that the guest does not see. If another environment changed the slot meanwhile, the
   * placement is computed again from the slot as it is then. So the request ("at this GPA", "of this size") keeps its meaning.
   */
  change(slot: Memslot, did: MemslotChanged['did'], compute: (now: Placement) => Placement): void {
    this.refuseInTransaction()
    for (;;) {
      checkAlive(slot)
      const { placement } = recordOf(slot)
      const after = compute(placement)
      const isTogether = together.has(did)
      const refusal = isTogether ? this.#makeTogether([stage(slot, did, after)]) : this.#make(slot, did, placement, after)
      if (!refusal) return
      // In a transaction of its own, the slot is deleted and created again if it must be.
      if (!this.#wasOvertaken(refusal)) throw this.#refused(slot, isTogether ? null : placement, after, refusal)
    }
  }

  remove(slot: Memslot): void {
    this.refuseInTransaction()
    for (const record = recordOf(slot); !record.gone; ) {
      const refusal = this.#make(slot, 'delete', record.placement, null)
      if (!refusal || this.#wasOvertaken(refusal)) continue
      if (this.closed) return
      throw this.#refused(slot, record.placement, null, refusal)
    }
  }

  #wasOvertaken({ errno }: Refusal): boolean {
    if (errno !== 'ESTALE') return false
    this.#follow()
    return true
  }

  #make(slot: Memslot, did: MemslotChanged['did'], before: Placement | null, after: Placement | null): Refusal | null {
    const region = putChange(this.#words, 0, recordOf(slot), before, after)
    const result = isWatched()
      ? announcing(
          () => this.#ask(slot, before, after, region),
          () => [this.#told({ slot, before, after, did })]
        )
      : this.#ask(slot, before, after, region)
    return result === 0 ? null : refusalIn(this.#words, result)
  }
  #ask(slot: Memslot, before: Placement | null, after: Placement | null, region: NativeRegion | null): number {
    if (region === null) this.#vm.changeMemslot()
    else this.#vm.changeMemslot(region)
    const result = this.#words[recordLength] as number
    if (result === 0) this.#record(slot, before, after, this.#words, 0)
    return result
  }

  #commit(all: readonly Staged[]): void {
    this.#open()
    if (all.length === 0) return
    const refusal = this.#makeTogether(all)
    if (!refusal) return
    const { slot, after } = all[refusal.change] as Staged
    throw this.#wasOvertaken(refusal) ? conflictError(slot) : this.#refused(slot, null, after, refusal)
  }

  #makeTogether(all: readonly Staged[]): Refusal | null {
    this.#follow()
    // The kernel and the VM's table have the last word on both, but here no guest needs to stop for the answer.
    const stale = all.findIndex(({ slot, state, before }) => before && (recordOf(slot).gone || recordOf(slot).changed !== state.changed))
    if (stale >= 0) return overtaken(stale)
    this.#checkOverlaps(all)
    const records = new Float64Array(all.length * recordLength)
    const regions = all.map(({ state, before, after }, index) => putChange(records, index * recordLength, state, before, after))
    const result = announcing(
      () => {
        const result = this.#vm.changeMemslots(records, regions)
        if (result === 0)
          for (const [index, { slot, before, after }] of all.entries()) this.#record(slot, before, after, records, index * recordLength)
        return result
      },
      () => all.map((staged) => this.#told(staged))
    )
    return result === 0 ? null : refusalIn(records, result)
  }

  #checkOverlaps(all: readonly Staged[]): void {
    const staged = new Set(all.map(({ slot }) => slot))
    const places = all.flatMap(({ slot, after }) => (after ? [{ id: slot.id, gpa: after.gpa, size: after.size }] : []))
    places.sort((one, other) => one.gpa - other.gpa)
    for (const [index, place] of places.entries()) {
      const last = places[index - 1]
      if (last && last.gpa + last.size > place.gpa) throw overlapError(place, last)
      const other = this.#index.within(place.gpa, place.size).find((slot) => !staged.has(slot))
      if (other) throw overlapError(place, other)
    }
  }

  /** Records a change that was made here, so that this table has it at once. */
  #record(slot: Memslot, before: Placement | null, after: Placement | null, records: Float64Array, at: number): void {
    const id = records[at] as number
    const number = records[at + 1] as number
    if (number === this.#generation + 1) this.#generation = number
    if (before === null) {
      const earlier = this.#byId[id]
      if (earlier) this.#tell([this.#lose(earlier)])
      this.#enter(slot, id, number)
    }
    this.#place(slot, after, number)
  }

  #enter(slot: Memslot, id: number, created: number): void {
    Object.assign(recordOf(slot), { id, created })
    while (this.#byId.length < id) this.#byId.push(undefined)
    this.#byId[id] = slot
    this.#length++
  }

  #place(slot: Memslot, after: Placement | null, changed: number): void {
    const record = recordOf(slot)
    const { mapping } = record.placement
    place(record, after, changed)
    this.#index.note(slot)
    if (after === null) {
      this.#byId[record.id] = undefined
      this.#length--
    }
    if (after?.mapping !== mapping) slotGone(mapping)
  }

  #lose(slot: Memslot): Moved {
    this.#place(slot, null, 0)
    return { before: rowOf(slot.id, recordOf(slot).placement), after: null }
  }

  /** Takes over the changes of other environments, and reports them as if they happened now. */
  #follow(): void {
    if (this.#vm.generation === this.#generation) return
    if (this.closed) {
      this.released()
      return
    }
    const newer = this.#vm.memslotsSince(this.#generation)
    this.#generation = newer.generation
    const mappings = new Mappings(this.#byId)
    this.#tell(rowsOf(newer).flatMap((row) => this.#takeOver(row, mappings)))
  }

  #takeOver(row: ChangedRow, mappings: Mappings): Moved[] {
    const there = this.#byId[row.id]
    const known = there && recordOf(there).created === row.created ? there : undefined
    const moved = there && !known ? [this.#lose(there)] : []
    const record = known && recordOf(known)
    if (row.region === null || record?.changed === row.changed) return moved
    const { gpa, size, offset, flags } = row
    const { guestMemfd, guestMemfdOffset = 0 } = record?.placement ?? {}
    const placement = { gpa, size, offset, flags, mapping: mappings.of(row.region, known), guestMemfd, guestMemfdOffset }
    const before = record ? rowOf(record.id, record.placement) : null
    const slot = known ?? makeSlot(this, placement)
    if (!known) this.#enter(slot, row.id, row.created)
    this.#place(slot, placement, row.changed)
    const after = rowOf(row.id, placement)
    if (before?.gpa !== after.gpa || before.size !== after.size || before.hva !== after.hva) moved.push({ before, after })
    return moved
  }

  #tell(moved: readonly Moved[]): void {
    announcing(
      () => 0,
      () => moved.map(({ before, after }) => this.#changed('change', before, after))
    )
  }
  #told({ slot: { id }, before, after, did }: Pick<Staged, 'slot' | 'before' | 'after' | 'did'>) {
    return this.#changed(did, before && rowOf(id, before), after && rowOf(id, after))
  }
  #changed(did: MemslotChanged['did'], before: MemslotRow | null, after: MemslotRow | null) {
    return { of: 'memslot' as const, did, table: this, before, after }
  }

  /** Called when the VM is closed: its slots hold nothing any more. */
  released(): void {
    this.#generation = -1
    for (const slot of this.#byId) if (slot) this.#place(slot, null, 0)
    this.#index.clear()
  }

  dirtyLog(slot: Memslot): Uint8Array {
    for (;;) {
      this.#open()
      checkAlive(slot)
      if (!slot.logDirty)
        throw new KvmError('argument', `slot ${slot.id} keeps no dirty log; setFlags({ logDirty: true }) first`, { argument: 'logDirty' })
      const bitmap = this.dirtyLogOf(slot)
      if (bitmap) return bitmap
    }
  }
  /** Returns null if the slot is no longer as this table has it. */
  dirtyLogOf(slot: Memslot): Uint8Array | null {
    const bitmap = zeroed(Math.ceil(slot.size / pageSize / 64) * 8)
    const result = this.#vm.getDirtyLog(slot.id, recordOf(slot).changed, bitmap)
    if (result >= 0) return bitmap
    if (errnoName(result) === 'ESTALE') return null
    throw this.#handle.refused(KVM_GET_DIRTY_LOG, result, `reading the dirty log of slot ${slot.id}`, bitmapCauses)
  }

  clearDirtyLog(slot: Memslot, bitmap: Uint8Array, firstPage: number): void {
    do {
      this.#open()
      checkAlive(slot)
    } while (!this.clearDirtyLogOf(slot, bitmap, firstPage))
  }
  /** Returns false if the slot is no longer as this table has it. */
  clearDirtyLogOf(slot: Memslot, bitmap: Uint8Array, firstPage: number): boolean {
    const pages = Math.min(bitmap.byteLength * 8, Math.max(0, slot.size / pageSize - firstPage))
    const result = this.#vm.clearDirtyLog(slot.id, recordOf(slot).changed, firstPage, pages, bitmap)
    if (result >= 0) return true
    if (errnoName(result) === 'ESTALE') return false
    throw this.#handle.refused(KVM_CLEAR_DIRTY_LOG, result, `clearing the dirty log of slot ${slot.id}`, bitmapCauses)
  }

  #open(): void {
    this.#handle.checkOpen()
    this.#follow()
  }

  #refused(slot: Memslot, before: Placement | null, after: Placement | null, refusal: Refusal): KvmError {
    // When the environment that created a VM closes it, the VM is closed for all, even if they still hold a descriptor.
    if (refusal.errno === 'EBADF')
      return this.closed ? this.#handle.closedError() : new KvmError('closed', `${this.#handle.name} was closed by the environment that created it`)
    const others = () => this.#index.all().flatMap((other) => (other === slot ? [] : [recordOf(other).placement]))
    const allowsReadonly = () => this.#handle.send(KVM_CHECK_EXTENSION, capabilities.READONLY_MEM) > 0
    const ownsGuestMemfd = after?.guestMemfd === undefined || ownerOf(after.guestMemfd) === this.#vm
    const { limit } = this
    return refusedError({ handle: this.#handle, slot, before, after, others, ownsGuestMemfd, allowsReadonly, limit }, refusal)
  }
}

interface Moved {
  before: MemslotRow | null
  after: MemslotRow | null
}

/** Finds the mapping of this environment for a region: one that the table already has, or a new one. */
class Mappings {
  readonly #slots: readonly (Memslot | undefined)[]
  #byAddress: Map<number, Mapping> | undefined

  constructor(slots: readonly (Memslot | undefined)[]) {
    this.#slots = slots
  }

  of(region: NativeRegion, known: Memslot | undefined): Mapping {
    const { address } = region
    if (known && heldRegionOf(known.mapping).address === address) return known.mapping
    this.#byAddress ??= new Map(this.#slots.flatMap((slot) => (slot ? [[slot.mapping.address, slot.mapping] as const] : [])))
    const there = this.#byAddress.get(address)
    // A mapping that released its memory still has the address, and something else may be there by now.
    if (there && heldRegionOf(there).address === address) return there
    const mapping = mappingOver(region)
    this.#byAddress.set(address, mapping)
    return mapping
  }
}
