/** Changes of a memslot table that take effect together. */
import { checkOptions } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import type { MemslotChanged } from './changes.js'
import type { Mapping } from './mapping.js'
import { checkPlacement, flagsWith, Memslot, type MemslotFlags, type MemslotOptions, type Placement, placementOf } from './memslot.js'

/** @internal one slot's part in a transaction; null where it is absent before or after */
export interface Staged {
  slot: Memslot
  before: Placement | null
  after: Placement | null
  did: MemslotChanged['did']
}

/**
 * Collects what is to change; nothing happens before the function that it was handed to returns. Then every vCPU of the VM leaves the guest,
 * wherever it runs, all is applied, and they go on: the guest sees the table as before or as after, and nothing between.
 * Made by {@link Memslots.transaction}.
 */
export class MemslotTransaction {
  readonly #staged = new Map<Memslot, Staged>()
  readonly #newSlot: (placement: Placement) => Memslot
  readonly #owns: (slot: Memslot) => boolean
  #over = false

  /** @internal */
  constructor(newSlot: (placement: Placement) => Memslot, owns: (slot: Memslot) => boolean) {
    this.#newSlot = newSlot
    this.#owns = owns
  }

  /** As {@link Memslots.create}. The slot counts once the transaction is done. */
  create(options: MemslotOptions): Memslot {
    const placement = placementOf(options)
    checkPlacement(placement)
    this.#alive()
    const slot = this.#newSlot(placement)
    this.#staged.set(slot, { slot, before: null, after: placement, did: 'create' })
    return slot
  }
  /** As {@link Memslot.move}; two slots may change places. */
  move(slot: Memslot, gpa: number): void {
    this.#stage(slot, { gpa }, 'move')
  }
  /** As {@link Memslot.rebind}. */
  rebind(slot: Memslot, mapping: Mapping, offset = 0): void {
    this.#stage(slot, { mapping, offset }, 'rebind')
  }
  /** As {@link Memslot.resize}. */
  resize(slot: Memslot, size: number): void {
    this.#stage(slot, { size }, 'resize')
  }
  /** As {@link Memslot.setFlags}. */
  setFlags(slot: Memslot, flags: MemslotFlags): void {
    this.#check(slot)
    this.#stage(slot, { flags: flagsWith(this.#current(slot).flags, checkOptions('flags', flags, ['logDirty'])) }, 'flags')
  }
  /** As {@link Memslot.delete}. */
  delete(slot: Memslot): void {
    this.#check(slot)
    const staged = this.#staged.get(slot)
    if (staged?.before === null) this.#staged.delete(slot)
    else this.#staged.set(slot, { slot, before: slot.placement, after: null, did: 'delete' })
  }

  /** @internal what is to be done, at the end */
  finish(): Staged[] {
    this.#over = true
    return [...this.#staged.values()]
  }

  #alive(): void {
    if (this.#over) throw new KvmError('state', 'the transaction is over; changes belong into the function that was given to transaction()')
  }
  #check(slot: Memslot): void {
    this.#alive()
    if (!(slot instanceof Memslot)) throw new KvmError('argument', `slot is ${typeof slot}; it must be a Memslot`, { argument: 'slot' })
    if (!this.#owns(slot)) throw new KvmError('argument', `memslot ${slot.id} belongs to another VM`, { argument: 'slot' })
    if (!this.#staged.has(slot) && slot.deleted) throw new KvmError('closed', `memslot ${slot.id} is deleted, or its VM is closed`)
    if (this.#staged.get(slot)?.after === null) throw new KvmError('closed', `memslot ${slot.id} is deleted in this transaction`)
  }
  #current(slot: Memslot): Placement {
    return this.#staged.get(slot)?.after ?? slot.placement
  }

  #stage(slot: Memslot, change: Partial<Placement>, did: MemslotChanged['did']): void {
    this.#check(slot)
    const after = { ...this.#current(slot), ...change }
    checkPlacement(after)
    const staged = this.#staged.get(slot)
    this.#staged.set(slot, { slot, before: staged ? staged.before : slot.placement, after, did: staged?.before === null ? 'create' : did })
  }
}

const end = ({ gpa, size }: Placement) => gpa + size
const meet = (one: Placement, other: Placement) => one.gpa < end(other) && other.gpa < end(one)

/** The kernel moves a slot and changes its dirty logging in place, and nothing else (api.rst 4.35). */
function changesInPlace(before: Placement, after: Placement): boolean {
  const sameMemory = before.mapping === after.mapping && before.offset === after.offset && before.size === after.size
  return sameMemory && before.guestMemfd === undefined && ((before.flags ^ after.flags) & ~1) === 0
}

/** One step that the kernel takes: another placement for a slot, or its end. */
export interface Step {
  staged: Staged
  placement: Placement | null
}

/** @internal The steps, in an order in which no two slots meet on the way. */
export function stepsOf(all: readonly Staged[]): Step[] {
  const removed = all.filter(
    ({ before, after, slot }) =>
      before !== null &&
      (after === null || !changesInPlace(before, after) || all.some((other) => other.slot !== slot && other.before && meet(other.before, after)))
  )
  return [
    ...removed.map((staged) => ({ staged, placement: null })),
    ...all.filter(({ after }) => after !== null).map((staged) => ({ staged, placement: staged.after }))
  ]
}
