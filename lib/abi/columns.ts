/** Tables in columns, which the add-on makes and reads. */

/** Memslots as columns, ordered by address space and GPA. */
export interface SlotColumns {
  gpa: Float64Array
  size: Float64Array
  hva: Float64Array
  flags: Uint32Array
  id: Int16Array
  addressSpace: Uint8Array
  guestMemfd: Uint8Array
}

/** Last-level entries of the second stage as columns, ordered by address space, GPA and level. */
export interface LeafColumns {
  gpa: Float64Array
  hpa: Float64Array
  spte: BigUint64Array
  role: Uint32Array
  level: Uint8Array
  addressSpace: Uint8Array
  /** 1 is an entry of the TDP MMU, 2 of a shadow page, 3 of a shadow page that keeps its GPAs beside its entries, 4 a note that the page is MMIO. */
  kind: Uint8Array
}

/** What joinTables() returns: a row for each page, ordered by slot and GPA. */
export interface PageColumns {
  gpa: Float64Array
  hva: Float64Array
  /** 0 where it is unknown or absent. */
  hpa: Float64Array
  secondHpa: Float64Array
  spte: BigUint64Array
  /** The row of its memslot among the slots. */
  slot: Uint32Array
  host: Uint16Array
  level: Uint8Array
  kind: Uint8Array
  framesHidden: boolean
  scanned: boolean
  /** Whether large mappings without a page of their own were left out: this kernel lists no ranges of pages, and they may map the zero page. */
  passedOver: boolean
  /** How many slots were left out because no memslot can have such values: the table changed while it was read. */
  impossibleSlots: number
  compared: number
  disagreeing: number
}
