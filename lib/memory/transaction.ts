/** Changes of a memslot table that take effect together. */

import { inspect } from 'node:util'
import type { Gpa } from '../abi/addresses.js'
import { argumentError, checkOptions } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { checkOurs, ours } from '../abi/internal.js'
import { shown } from '../abi/text.js'
import type { MemslotChanged } from './changes.js'
import type { Mapping } from './mapping.js'
import { checkAlive, Memslot, type MemslotOwner, makeSlot, recordOf } from './memslot.js'
import type { SlotState } from './memslot-words.js'
import { checkPlacement, flagsWith, type MemslotFlags, type MemslotOptions, type Placement, placementOf } from './placement.js'

/** @internal The part of one slot in a transaction; null if the slot is absent before or after it. */
export interface Staged {
  slot: Memslot
  /** The state from which the part was computed. */
  state: SlotState
  before: Placement | null
  after: Placement | null
  did: MemslotChanged['did']
}

/** @internal Makes the part from the slot as it is now. */
export const stage = (slot: Memslot, did: MemslotChanged['did'], after: Placement | null): Staged => ({
  slot,
  state: { id: slot.id, changed: recordOf(slot).changed },
  before: recordOf(slot).placement,
  after,
  did
})

/** @internal */
export let makeTransaction: (table: MemslotOwner) => MemslotTransaction
/** @internal Returns the parts to be done. */
export let stagedIn: (transaction: MemslotTransaction) => Staged[]
/** @internal Ends the transaction, done or not. Slots that it was to create and did not are deleted. */
export let endTransaction: (transaction: MemslotTransaction) => void

/**
 * Collects the changes of a transaction. Nothing happens before the function that got this object returns. Then every vCPU of the VM leaves the
 * guest, on whatever thread it runs, all changes are made, and the vCPUs go on: the guest sees the table as before or as after, and nothing between.
 * {@link Memslots.transaction} makes it.
 */
export class MemslotTransaction {
  readonly #table: MemslotOwner
  readonly #staged = new Map<Memslot, Staged>()
  readonly #created: Memslot[] = []
  #over = false

  static {
    makeTransaction = (table) => new MemslotTransaction(ours, table)
    stagedIn = (transaction) => [...transaction.#staged.values()]
    endTransaction = (transaction) => transaction.#end()
  }

  private constructor(key: symbol, table: MemslotOwner) {
    checkOurs(key, 'a MemslotTransaction', 'transaction() of the memslots of a Vm')
    this.#table = table
  }

  /** Does what {@link Memslots.create} does. The slot is usable once the transaction is done; if it fails, the slot is deleted. */
  create(options: MemslotOptions): Memslot {
    this.#alive()
    const after = checkPlacement(placementOf(options))
    const slot = makeSlot(this.#table, after)
    this.#created.push(slot)
    this.#staged.set(slot, { ...stage(slot, 'create', after), before: null })
    return slot
  }
  /** Does what {@link Memslot.move} does; two slots may change places. */
  move(slot: Memslot, gpa: Gpa): void {
    this.#stage(slot, { gpa }, 'move')
  }
  /** Does what {@link Memslot.rebind} does. */
  rebind(slot: Memslot, mapping: Mapping, offset = 0): void {
    this.#stage(slot, { mapping, offset }, 'rebind')
  }
  /** Does what {@link Memslot.resize} does. */
  resize(slot: Memslot, size: number): void {
    this.#stage(slot, { size }, 'resize')
  }
  /** Does what {@link Memslot.setFlags} does. */
  setFlags(slot: Memslot, flags: MemslotFlags): void {
    this.#check(slot)
    this.#stage(slot, { flags: flagsWith(this.#current(slot).flags, checkOptions('flags', flags, ['logDirty'])) }, 'flags')
  }
  /** Does what {@link Memslot.delete} does. */
  delete(slot: Memslot): void {
    this.#check(slot)
    const staged = this.#staged.get(slot)
    if (staged?.before === null) {
      this.#staged.delete(slot)
      recordOf(slot).gone = true
    } else this.#staged.set(slot, { ...(staged ?? stage(slot, 'delete', null)), after: null, did: 'delete' })
  }

  #end(): void {
    this.#over = true
    for (const slot of this.#created) if (slot.id < 0) recordOf(slot).gone = true
  }

  #alive(): void {
    if (this.#over) throw new KvmError('state', 'the transaction is over; make changes inside the function that was given to transaction()')
  }
  #check(slot: Memslot): void {
    this.#alive()
    if (!(slot instanceof Memslot)) throw argumentError('slot', slot, 'a Memslot')
    if (recordOf(slot).table !== this.#table) throw new KvmError('argument', `memslot ${slot.id} belongs to another VM`, { argument: 'slot' })
    if (this.#staged.get(slot)?.after === null) throw new KvmError('closed', `memslot ${slot.id} is deleted in this transaction`)
    if (!this.#staged.has(slot)) checkAlive(slot)
  }
  #current(slot: Memslot): Placement {
    return this.#staged.get(slot)?.after ?? recordOf(slot).placement
  }

  #stage(slot: Memslot, change: Partial<Placement>, did: MemslotChanged['did']): void {
    this.#check(slot)
    const after = checkPlacement({ ...this.#current(slot), ...change })
    const staged = this.#staged.get(slot)
    this.#staged.set(slot, staged ? { ...staged, after, did: staged.before === null ? 'create' : did } : stage(slot, did, after))
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('MemslotTransaction', { changes: this.#staged.size, over: this.#over })
  }
}
