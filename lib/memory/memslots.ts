/** The first table, GPA -> HVA: what KVM_SET_USER_MEMORY_REGION writes (api.rst 4.35). */
import { argumentError, checkAddress, pageSize } from '../abi/arguments.js'
import { errnoName, ioctlError, KvmError } from '../abi/errors.js'
import { zeroed } from '../abi/exhausted.js'
import type { NativeRegion, NativeVm } from '../abi/native.js'
import { announcing, isWatched, type MemslotChanged, type MemslotRow } from './changes.js'
import { Mapping } from './mapping.js'
import { checkPlacement, Memslot, type MemslotOptions, type Placement, placementOf } from './memslot.js'
import { MemslotIndex } from './memslot-index.js'
import { conflictError, overlapError, overtaken, type Refusal, refusalIn, refusedError } from './memslot-refusal.js'
import { type ChangedRow, putChange, recordLength, rowsOf } from './memslot-words.js'
import { MemslotTransaction, type Staged, stage } from './transaction.js'

const rowOf = (id: number, { gpa, size, mapping, offset }: Placement): MemslotRow => ({ id, gpa, size, hva: mapping.address + offset })

/** Those of which a running guest must not see the moment between. */
const together: ReadonlySet<MemslotChanged['did']> = new Set(['rebind', 'resize'])

/**
 * A VM's memslots, ordered by GPA. Ids are allotted by the library and used again after a delete. Every environment that holds the VM has a table of
 * its own, which follows the changes of the others when it is next used; how they change one table together says native/memslots.h.
 * @example
 * const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
 * slot.move(0xe000)
 * vm.memslots.lookup(0xe123)?.id === slot.id   // true
 */
export class Memslots implements Iterable<Memslot> {
  /** How many the host allows: KVM_CAP_NR_MEMSLOTS. */
  readonly limit: number
  readonly #vm: NativeVm
  readonly #words: Float64Array
  readonly #index = new MemslotIndex()
  // Ids are dense, and a Map of thousands is made anew every few hundred deletions.
  readonly #byId: (Memslot | undefined)[] = []
  #length = 0
  // All changes of the VM's table up to this one are in this one; -1 once closed.
  #generation = 0
  #inTransaction = false

  /** @internal */
  constructor(vm: NativeVm, limit: number) {
    this.#vm = vm
    this.#words = new Float64Array(vm.memslotWords)
    this.limit = limit
  }

  /** Whether the VM is closed. */
  get closed(): boolean {
    return this.#vm.fd < 0
  }
  /** How many there are. */
  get length(): number {
    this.#follow()
    return this.#length
  }

  /**
   * Gives the guest memory.
   * @throws KvmError `argument`, `overlap` (naming both ranges), `limit`, `closed`, `ioctl`, or `state` inside a transaction
   */
  create(options: MemslotOptions): Memslot {
    this.refuseInTransaction()
    const slot = new Memslot(this, checkPlacement(placementOf(options)))
    const refusal = this.#make(slot, 'create', null, slot.placement)
    if (refusal) throw this.#refused(slot, slot.placement, refusal)
    return slot
  }

  /**
   * Several changes at once, or none: while they are made no vCPU of the VM is in the guest, wherever it runs, so that the guest sees neither MMIO nor
   * old memory between. Dirty bits of slots that are rebound or resized, or that change places, are lost.
   * @param change called at once with the transaction; must not be asynchronous. What it throws comes through, and nothing is changed. Until it
   *   returns, all other changes made here (of the slots, of the dirty log, to close the VM) are refused
   * @throws KvmError `conflict` when another environment changed one of the slots after it was named to the transaction: nothing is changed, and the
   *   table is the newest, from which the transaction can be made anew; `overlap`, `argument`, `limit`, `closed`, `state` inside another transaction;
   *   or `ioctl`, and then the table is as before
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
    this.refuseInTransaction()
    this.#inTransaction = true
    const transaction = new MemslotTransaction(this)
    try {
      const result = change(transaction)
      if (typeof (result as { then?: unknown } | null)?.then === 'function')
        throw argumentError('change', 'asynchronous', 'a function that is done when it returns: the vCPUs wait for it')
      this.#commit(transaction.staged)
      return result
    } finally {
      transaction.end()
      this.#inTransaction = false
    }
  }

  /** @internal what changes slots, outside the object that collects the changes */
  refuseInTransaction(): void {
    if (this.#inTransaction)
      throw new KvmError('state', 'a transaction is going on: make all changes through the object that its function gets, or after it')
  }

  /** The slot that covers a GPA, or undefined: an access there is MMIO. */
  lookup(gpa: number): Memslot | undefined {
    checkAddress('gpa', gpa)
    this.#follow()
    const slot = this.#index.atOrBelow(gpa)
    return slot && gpa < slot.gpa + slot.size ? slot : undefined
  }

  /** By ascending GPA, as they are when the iteration begins. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    this.#follow()
    return this.#index.all()[Symbol.iterator]()
  }

  /** The table as text, a line each. */
  toString(): string {
    return [...this].join('\n')
  }
  /** Plain objects, by ascending GPA. */
  toJSON() {
    return [...this].map((slot) => slot.toJSON())
  }

  /**
   * @internal Another placement of a slot: one ioctl, or all that it takes, unseen by the guest. Overtaken by another environment's change of the
   * slot it is computed anew, from the slot as it is then: what is asked for ("at this GPA", "of this size") means the same.
   */
  change(slot: Memslot, did: MemslotChanged['did'], compute: (now: Placement) => Placement): void {
    this.refuseInTransaction()
    for (;;) {
      slot.checkAlive()
      const after = compute(slot.placement)
      const refusal = together.has(did) ? this.#makeTogether([stage(slot, did, after)]) : this.#make(slot, did, slot.placement, after)
      if (!refusal) return
      if (!this.#wasOvertaken(refusal)) throw this.#refused(slot, after, refusal)
    }
  }

  /** @internal */
  remove(slot: Memslot): void {
    this.refuseInTransaction()
    while (!slot.gone) {
      const refusal = this.#make(slot, 'delete', slot.placement, null)
      if (!refusal || this.#wasOvertaken(refusal)) continue
      if (this.closed) return
      throw this.#refused(slot, null, refusal)
    }
  }

  #wasOvertaken({ errno }: Refusal): boolean {
    if (errno !== 'ESTALE') return false
    this.#follow()
    return true
  }

  #make(slot: Memslot, did: MemslotChanged['did'], before: Placement | null, after: Placement | null): Refusal | null {
    const region = putChange(this.#words, 0, slot, before, after)
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
    throw this.#wasOvertaken(refusal) ? conflictError(slot) : this.#refused(slot, after, refusal)
  }

  #makeTogether(all: readonly Staged[]): Refusal | null {
    this.#follow()
    // The kernel and the table have the last word on both, but here no guest need be stopped for it.
    const stale = all.findIndex(({ slot, state, before }) => before && (slot.gone || slot.changed !== state.changed))
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

  /** What was made here is in this table at once. */
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
    slot.named(id, created)
    while (this.#byId.length < id) this.#byId.push(undefined)
    this.#byId[id] = slot
    this.#length++
  }

  #place(slot: Memslot, after: Placement | null, changed: number): void {
    const { mapping } = slot
    slot.placed(after, changed)
    this.#index.note(slot)
    if (after === null) {
      this.#byId[slot.id] = undefined
      this.#length--
    }
    if (after?.mapping !== mapping) mapping.slotGone()
  }

  #lose(slot: Memslot): Moved {
    this.#place(slot, null, 0)
    return { before: rowOf(slot.id, slot.placement), after: null }
  }

  /** Takes over what other environments changed, and tells of it as if it happened now. */
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
    const known = there?.created === row.created ? there : undefined
    const moved = there && !known ? [this.#lose(there)] : []
    if (row.region === null || known?.changed === row.changed) return moved
    const { gpa, size, offset, flags } = row
    const { guestMemfd, guestMemfdOffset = 0 } = known?.placement ?? {}
    const placement = { gpa, size, offset, flags, mapping: mappings.of(row.region, known), guestMemfd, guestMemfdOffset }
    const before = known ? rowOf(known.id, known.placement) : null
    const slot = known ?? new Memslot(this, placement)
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

  /** @internal the VM is closed: its slots hold nothing any more */
  released(): void {
    this.#generation = -1
    for (const slot of this.#byId) if (slot) this.#place(slot, null, 0)
    this.#index.clear()
  }

  /** @internal */
  dirtyLog(slot: Memslot): Uint8Array {
    for (;;) {
      this.#open()
      slot.checkAlive()
      if (!slot.logDirty)
        throw new KvmError('argument', `slot ${slot.id} keeps no dirty log; setFlags({ logDirty: true }) first`, { argument: 'logDirty' })
      const bitmap = this.dirtyLogOf(slot)
      if (bitmap) return bitmap
    }
  }
  /** @internal null when it is not any more as this table has it */
  dirtyLogOf(slot: Memslot): Uint8Array | null {
    const bitmap = zeroed(Math.ceil(slot.size / pageSize / 64) * 8)
    const result = this.#vm.getDirtyLog(slot.id, slot.changed, bitmap)
    if (result >= 0) return bitmap
    if (errnoName(result) === 'ESTALE') return null
    throw ioctlError('KVM_GET_DIRTY_LOG', result, `reading the dirty log of slot ${slot.id}`, 'ENXIO: this VM keeps dirty rings instead')
  }

  /** @internal */
  clearDirtyLog(slot: Memslot, bitmap: Uint8Array, firstPage: number): void {
    do {
      this.#open()
      slot.checkAlive()
    } while (!this.clearDirtyLogOf(slot, bitmap, firstPage))
  }
  /** @internal false when it is not any more as this table has it */
  clearDirtyLogOf(slot: Memslot, bitmap: Uint8Array, firstPage: number): boolean {
    const pages = Math.min(bitmap.byteLength * 8, Math.max(0, slot.size / pageSize - firstPage))
    const result = this.#vm.clearDirtyLog(slot.id, slot.changed, firstPage, pages, bitmap)
    if (result >= 0) return true
    if (errnoName(result) === 'ESTALE') return false
    throw ioctlError('KVM_CLEAR_DIRTY_LOG', result, `clearing the dirty log of slot ${slot.id}`)
  }

  #open(): void {
    if (this.closed) throw new KvmError('closed', 'the VM is closed')
    this.#follow()
  }

  #refused(slot: Memslot, after: Placement | null, refusal: Refusal): KvmError {
    if (refusal.errno === 'EBADF' && this.closed) return new KvmError('closed', 'the VM is closed')
    return refusedError(slot, after, refusal, this.limit)
  }
}

interface Moved {
  before: MemslotRow | null
  after: MemslotRow | null
}

/** Which mapping of this environment stands for a region: one that the table has, or one more. */
class Mappings {
  readonly #slots: readonly (Memslot | undefined)[]
  #byAddress: Map<number, Mapping> | undefined

  constructor(slots: readonly (Memslot | undefined)[]) {
    this.#slots = slots
  }

  of(region: NativeRegion, known: Memslot | undefined): Mapping {
    const { address } = region
    if (known?.mapping.heldRegion.address === address) return known.mapping
    this.#byAddress ??= new Map(this.#slots.flatMap((slot) => (slot ? [[slot.mapping.address, slot.mapping] as const] : [])))
    const there = this.#byAddress.get(address)
    // One that let go of its memory has the address still, where something else may lie by now.
    if (there?.heldRegion.address === address) return there
    const mapping = Mapping.over(region)
    this.#byAddress.set(address, mapping)
    return mapping
  }
}
