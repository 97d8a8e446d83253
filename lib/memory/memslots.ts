/** The first table of a VM, as users see it. */

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
 * The memslots of a VM, ordered by GPA. The library chooses the ids, and uses them again after a delete. Each environment that holds the VM has its
 * own table. A table takes over the changes of the other environments when it is next used; native/core/memslots.h describes how they change the VM's
 * one table together.
 * @example
 * const slot = vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
 * slot.move(0xe000)
 * vm.memslots.lookup(0xe123)?.id === slot.id   // true
 */
export class Memslots implements Iterable<Memslot> {
  /** How many memslots the host allows: KVM_CAP_NR_MEMSLOTS. */
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
  /** How many memslots there are. */
  get length(): number {
    return this.#table.length
  }

  /**
   * Creates a memslot, which gives the guest memory.
   * @throws KvmError `argument`, `overlap` (naming both ranges), `limit`, `closed`, `ioctl`, or `state` inside a transaction
   */
  create(options: MemslotOptions): Memslot {
    return this.#table.create(options)
  }

  /**
   * Makes several changes at once, or none. No vCPU of the VM is in the guest meanwhile, on any thread, so the guest sees neither MMIO nor old memory
   * in between. The dirty bits of slots that are rebound, resized, or change places are lost.
   * @param change called at once with the transaction; it must not be asynchronous. If it throws, nothing is changed and the error is passed on.
   * Until it returns, all other changes in this environment (of the slots, of the dirty log, closing the VM) are refused
   * @throws KvmError `conflict` if another environment changed one of the slots after it was named to the transaction: nothing is changed, and the
   *   table is up to date, so that the transaction can be repeated; `overlap`, `argument`, `limit`, `closed`; `state` inside another transaction; or
   *   `ioctl`, and then the table is as before
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

  /** Returns the slot that covers a GPA. It returns undefined if there is none; an access there is MMIO. */
  lookup(gpa: Gpa): Memslot | undefined {
    return this.#table.lookup(gpa)
  }

  /** Iterates over the slots in ascending order of GPA, as they are when the iteration begins. */
  [Symbol.iterator](): IterableIterator<Memslot> {
    return this.#table[Symbol.iterator]()
  }

  /** Returns the table as text, one slot per line. */
  toString(): string {
    return [...this].join('\n')
  }
  /** Returns plain objects, in ascending order of GPA. */
  toJSON() {
    return [...this].map((slot) => slot.toJSON())
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('Memslots', { length: this.length, limit: this.limit, closed: this.closed })
  }
}
