/** Translates one address by the three tables. */
import type { Gpa, Hpa, Hva } from '../../abi/addresses.js'
import { checkAddress, hex, pageSize } from '../../abi/arguments.js'
import type { LeafColumns, PageColumns } from '../../abi/columns.js'
import { accessText, decodeSpte, levelSize, type Spte, type SpteFormat } from '../../x86/spte.js'
import { spteFormat } from '../host.js'
import { hostMappings } from './backing.js'
import type { Evidence } from './evidence.js'
import { type HostView, hostView } from './host-page.js'
import { slotOf, type TableSlot } from './table-slot.js'
import { addressSpaceOf, checkTables, lookAtAll, type Subject, type Tables } from './tables.js'

/** The second stage's entry for a GPA, or the reason why none is known. */
export type SecondStage =
  | {
      present: true
      hpa: Hpa
      level: number
      /** The bytes that the entry maps. */
      size: number
      access: string
      format: SpteFormat
      spte: Spte
      /** How many entries map this page; shadow paging has one for each guest-virtual address. */
      entries: number
      /** Why the entry is small although the host's page is huge. */
      whySmall?: string
    }
  | { present: false; reason: string }

/** The translation of one GPA. */
export interface Translation {
  gpa: Gpa
  slot: TableSlot | null
  /** The HVA, or null outside of every memslot, where an access is MMIO. */
  hva: Hva | null
  /** The HPA, or null if the host has no page there now or hides its address. */
  hpa: Hpa | null
  host: HostView | null
  secondStage: SecondStage
  /** Whether both ways lead to the same page: GPA to HVA to HPA, and GPA to HPA. It is null if one of them is absent or hidden. */
  agrees: boolean | null
  evidence: Evidence
}

/** Returns the rows of the leaves that map a page, at any level. */
function leavesAt(leaves: LeafColumns, gpa: Gpa, addressSpace: number): number[] {
  const found: number[] = []
  // An entry begins at a multiple of its size, and the entries are ordered by their beginning.
  for (const level of [1, 2, 3]) {
    const begin = gpa - (gpa % levelSize(level))
    let low = 0
    for (let high = leaves.gpa.length; low < high; ) {
      const middle = (low + high) >> 1
      const space = leaves.addressSpace[middle] as number
      if (space < addressSpace || (space === addressSpace && (leaves.gpa[middle] as number) < begin)) low = middle + 1
      else high = middle
    }
    for (; leaves.gpa[low] === begin && leaves.addressSpace[low] === addressSpace; low++) if (leaves.level[low] === level) found.push(low)
  }
  return found
}

/** Explains why KVM maps in small pages what the host has in a large one (kvm_mmu_max_mapping_level(), __kvm_mmu_max_mapping_level()). */
export function whySmall(slot: Pick<TableSlot, 'gpa' | 'hva' | 'size' | 'logDirty'>, gpa: Gpa): string {
  const huge = levelSize(2)
  const begin = gpa - (gpa % huge)
  if (slot.logDirty) return 'the slot is dirty-logged, so KVM tracks each 4 KiB page'
  if (slot.gpa % huge !== slot.hva % huge) return 'GPA and HVA of the slot have different offsets within 2 MiB'
  if (begin < slot.gpa || begin + huge > slot.gpa + slot.size) return 'the 2 MiB around it reach beyond the slot'
  return 'the guest maps it in small pages, or KVM split it (nx_huge_pages, a shadowed page table, an access before the host had the huge page)'
}

function noEntry(gpa: Gpa, how: Evidence, isMmio: boolean, hasSlot: boolean): SecondStage {
  if (how.secondStage === null) return { present: false, reason: how.missing.find((text) => text.startsWith('the second stage')) ?? 'not read' }
  if (isMmio) return { present: false, reason: `KVM has recorded that ${hex(gpa)} is MMIO` }
  return {
    present: false,
    reason: hasSlot
      ? 'no entry: the guest has not touched it since the last change; its next access faults'
      : 'no memslot, so there is no memory to map: an access is MMIO'
  }
}

function secondStageOf(leaves: LeafColumns, rows: number[], gpa: Gpa, format: SpteFormat): (SecondStage & { present: true }) | null {
  const mapped = rows.filter((row) => leaves.kind[row] !== 4)
  const row = mapped[0]
  if (row === undefined) return null
  const level = leaves.level[row] as number
  const spte = decodeSpte(format, leaves.spte[row] as bigint, level)
  return {
    present: true,
    hpa: (leaves.hpa[row] as number) + (gpa - (leaves.gpa[row] as number)),
    level,
    size: levelSize(level),
    access: accessText(spte),
    format,
    spte,
    entries: mapped.length
  }
}

/** @internal */
export function translateIn(subject: Subject, gpa: Gpa): Translation {
  checkAddress('gpa', gpa)
  const page = gpa - (gpa % pageSize)
  const { slots, leaves, rows, evidence } = lookAtAll(subject, page, page + pageSize)
  const index = slots.gpa.findIndex((start, row) => slots.addressSpace[row] === 0 && gpa >= start && gpa < start + (slots.size[row] as number))
  const slot = index < 0 ? null : slotOf(slots, index, hostMappings(subject.pid))
  const inLeaves = leavesAt(leaves, gpa, 0)
  const mapped = secondStageOf(leaves, inLeaves, gpa, spteFormat())
  const row = rows.gpa.findIndex((_, number) => rows.slot[number] === index)
  const host =
    slot && evidence.host ? hostView(row < 0 ? 0 : (rows.host[row] as number), row < 0 ? 0 : (rows.hpa[row] as number), rows.scanned) : null
  const hpa = row < 0 || !rows.hpa[row] ? null : (rows.hpa[row] as number) + (gpa - page)
  const agrees =
    hpa === null || !mapped
      ? null
      : inLeaves.every((leaf) => leaves.kind[leaf] === 4 || (leaves.hpa[leaf] as number) + (gpa - (leaves.gpa[leaf] as number)) === hpa)
  if (mapped && slot && mapped.level === 1 && (host?.huge ?? host?.transparentHuge)) mapped.whySmall = whySmall(slot, gpa)
  const secondStage = mapped ?? noEntry(gpa, evidence, inLeaves.length > 0, slot !== null)
  return { gpa, slot, hva: slot && slot.hva + (gpa - slot.gpa), hpa, host, secondStage, agrees, evidence }
}

/** Translates backwards by the first table: returns every GPA of an HVA, since one page may be in several slots. It uses address space 0. */
export function hvaToGpa(table: Pick<Tables, 'slots'>, hva: Hva): Gpa[] {
  const { slots } = checkTables('table', table, ['slots'])
  checkAddress('hva', hva)
  return slots.filter((slot) => slot.addressSpace === 0 && hva >= slot.hva && hva < slot.hva + slot.size).map((slot) => slot.gpa + (hva - slot.hva))
}

/** Returns every GPA that leads to an HPA, by the host page tables or by the second stage. It uses address space 0. */
export function hpaToGpa(table: Pick<Tables, 'slots'> & Pick<PageColumns, 'gpa' | 'hpa' | 'secondHpa' | 'slot'>, wanted: Hpa): Gpa[] {
  const { gpa, hpa, secondHpa } = checkTables('table', table, ['gpa', 'hpa', 'secondHpa', 'slot', 'slots'])
  checkAddress('hpa', wanted)
  const page = wanted - (wanted % pageSize)
  const found = new Set<number>()
  for (let row = 0; row < gpa.length; row++)
    if (page !== 0 && (hpa[row] === page || secondHpa[row] === page) && addressSpaceOf(table, row) === 0)
      found.add((gpa[row] as number) + (wanted - page))
  return [...found]
}
