/** The first table of a VM, as its users have it. */

import { inspect } from 'node:util'
import type { Gpa } from '../abi/addresses.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { Handle } from '../abi/ioctls.js'
import type { NativeVm } from '../abi/native.js'
import { shown } from '../abi/text.js'
import type { Memslot } from './memslot.js'
import type { MemslotOptions } from './placement.js'
import { SlotTable } from './slot-table.js'
import type { MemslotTransaction } from './transaction.js'

/** @internal */
export let makeMemslots: (vm: NativeVm, handle: Handle, limit: number) => Memslots
/** @internal */
export let tableOf: (memslots: Memslots) => SlotTable

/**
 * A VM's memslots, ordered by GPA. Ids are allotted by the library and used again after a delete. Every environment that holds the VM has a table of
 * its own, which follows the changes of the others when it is next used; how they change one table together says native/core/memslots.h.
 * @example
 * const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
 * slot.move(0xe000)
 * vm.memslots.lookup(0xe123)?.id === slot.id   // true
 */
export class Memslots implements Iterable<Memslot> {
  /** How many the host allows: KVM_CAP_NR_MEMSLOTS. */
  readonly limit: number
  readonly #table: SlotTable

  static {
    makeMemslots = (...given) => new Memslots(ours, new SlotTable(...given))
    tableOf = (memslots) => memslots.#table
  }

  private constructor(key: symbol, table: SlotTable) {
    checkOurs(key, 'a Memslots', 'Kvm.createVm()')
    this.#table = table
    this.limit = table.limit
  }

  /** Whether the VM is closed. */
  get closed(): boolean {
    return this.#table.closed
  }
  /** How many there are. */
  get length(): number {
    return this.#table.length
  }

  /**
   * Gives the guest memory.
   * @throws KvmError `argument`, `overlap` (naming both ranges), `limit`, `closed`, `ioctl`, or `state` inside a transaction
   */
  create(options: MemslotOptions): Memslot {
    return this.#table.create(options)
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
    return this.#table.transaction(change)
  }

  /** The slot that covers a GPA, or undefined: an access there is MMIO. */
  lookup(gpa: Gpa): Memslot | undefined {
    return this.#table.lookup(gpa)
  }

  /** By ascending GPA, as they are when the iteration begins. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    return this.#table[Symbol.iterator]()
  }

  /** The table as text, a line each. */
  toString(): string {
    return [...this].join('\n')
  }
  /** Plain objects, by ascending GPA. */
  toJSON() {
    return [...this].map((slot) => slot.toJSON())
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('Memslots', { length: this.length, limit: this.limit, closed: this.closed })
  }
}
