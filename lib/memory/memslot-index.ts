/** The memslots in order of GPA. */
import { createRequire } from 'node:module'
import type { Gpa } from '../abi/addresses.js'
import { type Memslot, recordOf, type SlotRecord } from './memslot.js'

// This is a CommonJS module. To import one, Node first parses all of it for its exports, which takes a third of the time to load this package.
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree')

/** An index that is brought up to date when it is read. A change that nobody looks at costs only a note. */
export class MemslotIndex {
  readonly #byGpa = new BTree<number, Memslot>()
  // The changed slots, each of them once. A slot knows its place here, so one that came and went in between can leave the list again.
  readonly #noted: Memslot[] = []

  /** Notes that a slot was created, changed or deleted. */
  note(slot: Memslot): void {
    const record = recordOf(slot)
    if (record.gone && record.indexedAt === -1) this.#forget(slot, record)
    else if (record.notedAt === -1) record.notedAt = this.#noted.push(slot) - 1
  }

  #forget(slot: Memslot, record: SlotRecord): void {
    if (record.notedAt === -1) return
    const last = this.#noted.pop() as Memslot
    if (last !== slot) {
      this.#noted[record.notedAt] = last
      recordOf(last).notedAt = record.notedAt
    }
    record.notedAt = -1
  }

  // All old entries leave before a new one comes, because a slot may stand where another one was.
  #update(): void {
    if (this.#noted.length === 0) return
    for (const slot of this.#noted) {
      const { indexedAt } = recordOf(slot)
      if (indexedAt !== -1) this.#byGpa.delete(indexedAt)
    }
    for (const slot of this.#noted) {
      const record = recordOf(slot)
      record.notedAt = -1
      record.indexedAt = record.gone ? -1 : slot.gpa
      if (!record.gone) this.#byGpa.set(slot.gpa, slot)
    }
    this.#noted.length = 0
  }

  /** Returns the slot with the highest GPA that is not above this one. */
  atOrBelow(gpa: Gpa): Memslot | undefined {
    this.#update()
    return this.#byGpa.getPairOrNextLower(gpa)?.[1]
  }

  /** Returns the slots that share guest addresses with a range. */
  within(gpa: Gpa, size: number): Memslot[] {
    const found: Memslot[] = []
    for (let slot = this.atOrBelow(gpa + size - 1); slot && slot.gpa + slot.size > gpa; slot = this.atOrBelow(slot.gpa - 1)) found.push(slot)
    return found
  }

  clear(): void {
    this.#noted.length = 0
    this.#byGpa.clear()
  }

  /** Returns all slots in ascending order of GPA, as they are now. */
  all(): Memslot[] {
    this.#update()
    return this.#byGpa.valuesArray()
  }
}
