/** Tables as columns, which the add-on makes and reads. */

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
  /** 1 a TDP MMU's, 2 a shadow page's, 3 one's whose GPAs it keeps beside, 4 a note that the page is MMIO. */
  kind: Uint8Array
}

/** joinTables(): a row for each page, ordered by slot and GPA. */
export interface PageColumns {
  gpa: Float64Array
  hva: Float64Array
  /** 0 where unknown or absent. */
  hpa: Float64Array
  secondHpa: Float64Array
  spte: BigUint64Array
  /** The row in the slots. */
  slot: Uint32Array
  host: Uint16Array
  level: Uint8Array
  kind: Uint8Array
  framesHidden: boolean
  scanned: boolean
  /** Large mappings that have no page of their own were passed over, as the kernel knows no ranges of pages: they may map the page of zeros. */
  passedOver: boolean
  /** Slots that were left out, as no memslot can be so: what was read was being changed. */
  impossibleSlots: number
  compared: number
  disagreeing: number
}
