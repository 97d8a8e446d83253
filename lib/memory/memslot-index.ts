/** Memslots in order of GPA. */
import { createRequire } from 'node:module'
import type { Gpa } from '../abi/addresses.js'
import { type Memslot, recordOf, type SlotRecord } from './memslot.js'

// A CommonJS module: to import one, Node parses all of it for its exports first, which takes as long as a third of this package.
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree')

/** Brought up to date when it is asked: changes that nobody looks at between cost a note each. */
export class MemslotIndex {
  readonly #byGpa = new BTree<number, Memslot>()
  // Slots that changed, each once, and at the place that it knows: so that one which came and went in between can leave again.
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

  // All leave before one comes: a slot may stand where another was.
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

  /** The slot with the highest GPA up to this one. */
  atOrBelow(gpa: Gpa): Memslot | undefined {
    this.#update()
    return this.#byGpa.getPairOrNextLower(gpa)?.[1]
  }

  /** Those that share guest addresses with a range. */
  within(gpa: Gpa, size: number): Memslot[] {
    const found: Memslot[] = []
    for (let slot = this.atOrBelow(gpa + size - 1); slot && slot.gpa + slot.size > gpa; slot = this.atOrBelow(slot.gpa - 1)) found.push(slot)
    return found
  }

  clear(): void {
    this.#noted.length = 0
    this.#byGpa.clear()
  }

  /** By ascending GPA, as they are now. */
  all(): Memslot[] {
    this.#update()
    return this.#byGpa.valuesArray()
  }
}
