/** The second stage according to trace events: what the TDP MMU wrote and dropped, entry by entry (arch/x86/kvm/mmu/tdp_mmu.c). */
import type { LeafColumns } from '../../abi/columns.js'
import { decodeSpte, levelSize, type Spte, type SpteFormat } from '../../x86/spte.js'
import type { HitRange, SpteChangeEvent, TraceEvent } from '../trace/events.js'

interface Entry {
  addressSpace: number
  level: number
  gfn: number
  spte: bigint
}

const addressBits = 0x000f_ffff_ffff_f000n
const hugeBit = 1n << 7n
const childrenOf = 512

/** Packs address space, level and gfn (of at most 40 bits) into one number. */
const keyOf = (addressSpace: number, level: number, gfn: number) => (addressSpace * 8 + level) * 2 ** 40 + gfn
const isLeaf = (entry: Spte, level: number) => entry.present && (level === 1 || entry.huge)
const sameAddress = (one: bigint, other: bigint) => ((one ^ other) & addressBits) === 0n

/** The last-level entries, which are updated by applying events in their order. */
export class MirroredEntries {
  /** A number that grows with each change: while it stays equal, the entries are equal. */
  changes = 0
  readonly #format: SpteFormat
  readonly #process: number
  #entries = new Map<number, Entry>()
  /** After a zap of everything: the entries of unreachable old tables, whose end the thread has yet to report. */
  #dying: { thread: number; entries: Map<number, Entry> } | undefined

  /** @param process the process whose entries these are: the events of its threads report each entry, those of kernel threads do not */
  constructor(format: SpteFormat, process: number) {
    this.#format = format
    this.#process = process
  }

  get size(): number {
    return this.#entries.size
  }

  apply(event: TraceEvent): void {
    switch (event.kind) {
      case 'spte-change':
        this.#change(event)
        break
      case 'zap-all':
        this.#zapAll(event.thread)
        break
      case 'notifier-unmap':
        if (this.#dying?.thread === event.thread) this.#dying = undefined
        if (event.process !== this.#process) this.#unmap(event.gpas ?? [])
        break
      case 'memslot':
        this.#dying = undefined
    }
  }

  #zapAll(thread: number): void {
    this.#dying = { thread, entries: this.#entries }
    this.#entries = new Map()
    this.changes++
  }

  #change(event: SpteChangeEvent): void {
    const { addressSpace, level, gfn, before, after, thread } = event
    const key = keyOf(addressSpace, level, gfn)
    if (this.#dying?.thread === thread) {
      if (after.present) this.#dying = undefined
      else if (this.#endsDying(key, event.old)) return
    }
    this.changes++
    if (isLeaf(after, level)) this.#entries.set(key, { addressSpace, level, gfn, spte: event.new })
    else if (isLeaf(before, level)) this.#entries.delete(key)
    // A table that replaces a huge entry comes filled with the same pages (tdp_mmu_split_huge_page()).
    if (isLeaf(before, level) && after.present && !isLeaf(after, level)) this.#split({ addressSpace, level, gfn, spte: event.old })
  }

  /** Whether the entry that ended belongs to an old table. */
  #endsDying(key: number, spte: bigint): boolean {
    const entry = this.#dying?.entries.get(key)
    if (!entry || !sameAddress(entry.spte, spte)) return false
    this.#dying?.entries.delete(key)
    return true
  }

  #split({ addressSpace, level, gfn, spte }: Entry): void {
    const pages = levelSize(level - 1) / levelSize(1)
    const kept = level === 2 ? spte & ~hugeBit : spte
    for (let child = 0; child < childrenOf; child++) {
      const at = gfn + child * pages
      this.#entries.set(keyOf(addressSpace, level - 1, at), {
        addressSpace,
        level: level - 1,
        gfn: at,
        spte: kept + BigInt(child * pages * levelSize(1))
      })
    }
  }

  /**
   * For a kernel thread that took pages back: every entry that maps a part of them is dropped. The memslots of address space 1 are not known here.
   */
  #unmap(ranges: readonly HitRange[]): void {
    for (const { gpa, size } of ranges)
      for (const [key, { gfn, level }] of this.#entries)
        if (gfn * levelSize(1) < gpa + size && gfn * levelSize(1) + levelSize(level) > gpa) {
          this.#entries.delete(key)
          this.changes++
        }
  }

  /** Returns the entries in the order in which the tables are read: address space, GPA, level. */
  columns(): LeafColumns {
    const list = [...this.#entries.values()].sort(
      (one, other) => one.addressSpace - other.addressSpace || one.gfn - other.gfn || one.level - other.level
    )
    return {
      gpa: Float64Array.from(list, ({ gfn }) => gfn * levelSize(1)),
      hpa: Float64Array.from(list, ({ spte, level }) => {
        const { hpa } = decodeSpte(this.#format, spte, level)
        return hpa - (hpa % levelSize(level))
      }),
      spte: BigUint64Array.from(list, ({ spte }) => spte),
      role: new Uint32Array(list.length),
      level: Uint8Array.from(list, ({ level }) => level),
      addressSpace: Uint8Array.from(list, ({ addressSpace }) => addressSpace),
      kind: new Uint8Array(list.length).fill(1)
    }
  }
}
