/** The memslots as they were read from the kernel. */
import { inspect } from 'node:util'
import type { Gpa, Hva } from '../../abi/addresses.js'
import type { SlotColumns } from '../../abi/columns.js'
import { type Backing, backingOf, type HostMapping, hostMappings } from './backing.js'

/** A memslot as the kernel has it. */
export interface TableSlot {
  id: number
  /** The address space; 1 is the one of system management mode. */
  addressSpace: number
  gpa: Gpa
  size: number
  hva: Hva
  /** The KVM_MEM_ flags. */
  flags: number
  logDirty: boolean
  readonly: boolean
  backing: Backing
  /** The file behind the slot, if there is one. */
  path: string
}

/** @internal Makes the slot of one row. */
export function slotOf(columns: SlotColumns, row: number, mappings: readonly HostMapping[]): TableSlot {
  const flags = columns.flags[row] as number
  const hva = columns.hva[row] as number
  const size = columns.size[row] as number
  const { backing, path } = backingOf(mappings, hva, size)
  return {
    id: columns.id[row] as number,
    addressSpace: columns.addressSpace[row] as number,
    gpa: columns.gpa[row] as number,
    size,
    hva,
    flags,
    logDirty: (flags & 1) !== 0,
    readonly: (flags & 2) !== 0,
    backing: columns.guestMemfd[row] ? 'guest_memfd' : backing,
    path
  }
}

interface Reading {
  readonly columns: SlotColumns
  readonly mappings: readonly HostMapping[]
}

/**
 * A slot of a list that may have 32,764 slots. It holds little: its fields are read on demand. Code that copies objects by their own properties
 * (spread, structuredClone(), postMessage()) finds none; give it the result of toJSON().
 * @example
 * console.table(hostVms().flatMap(({ memslots }) => memslots.map((slot) => slot.toJSON())))
 */
export class ListedSlot implements TableSlot {
  readonly #reading: Reading
  readonly #row: number

  /** @internal */
  constructor(reading: Reading, row: number) {
    this.#reading = reading
    this.#row = row
  }

  /** The kernel's slot number. */
  get id(): number {
    return this.#reading.columns.id[this.#row] as number
  }
  /** The address space; 1 is the one of system management mode. */
  get addressSpace(): number {
    return this.#reading.columns.addressSpace[this.#row] as number
  }
  /** The GPA of the first byte. */
  get gpa(): Gpa {
    return this.#reading.columns.gpa[this.#row] as number
  }
  /** The size in bytes, whole pages. */
  get size(): number {
    return this.#reading.columns.size[this.#row] as number
  }
  /** The HVA of the first byte. */
  get hva(): Hva {
    return this.#reading.columns.hva[this.#row] as number
  }
  /** The KVM_MEM_ flags. */
  get flags(): number {
    return this.#reading.columns.flags[this.#row] as number
  }
  /** Whether KVM keeps a bitmap of written pages (KVM_MEM_LOG_DIRTY_PAGES). */
  get logDirty(): boolean {
    return (this.flags & 1) !== 0
  }
  /** Whether guest writes are MMIO exits (KVM_MEM_READONLY). */
  get readonly(): boolean {
    return (this.flags & 2) !== 0
  }
  /** The kind of memory at its HVAs. */
  get backing(): Backing {
    return this.toJSON().backing
  }
  /** The file behind the slot, if there is one. */
  get path(): string {
    return this.toJSON().path
  }

  /** Returns all fields as a plain object. */
  toJSON(): TableSlot {
    return slotOf(this.#reading.columns, this.#row, this.#reading.mappings)
  }
  /** Returns what console.log() shows. */
  [inspect.custom](): TableSlot {
    return this.toJSON()
  }
}

/** @internal */
export function slotList(columns: SlotColumns, pid: number): ListedSlot[] {
  const reading = { columns, mappings: hostMappings(pid) }
  const { length } = columns.gpa
  const slots = new Array<ListedSlot>(length)
  for (let row = 0; row < length; row++) slots[row] = new ListedSlot(reading, row)
  return slots
}
