/** Summarizes a VM's tables in numbers. */
import { argumentError } from '../../abi/arguments.js'
import { levelSize } from '../../x86/spte.js'
import { hostBits } from './host-page.js'
import { checkTables, type Tables } from './tables.js'
import { whySmall } from './translate.js'

/** Sizes in bytes of guest memory in memslots. */
export interface Summary {
  slots: number
  /** The memory in slots of address space 0. */
  memory: number
  resident: number
  swapped: number
  /** The memory that entries of an upper level of the host's page tables map, or null if that is not known. */
  hostHuge: number | null
  /** The memory that the second stage maps, by the size of its entries. */
  mapped: { total: number; small: number; huge2M: number; huge1G: number }
  /** The memory that is huge on the host but small in the second stage; the next field is the opposite. */
  hugeOnHostOnly: number
  hugeInSecondStageOnly: number
  /** The reasons for `hugeOnHostOnly`, with the bytes for each. */
  whySmall: Record<string, number>
  /** The memory that the second stage maps but the host lacks. Such a state can only exist for a moment between two readings. */
  mappedNotResident: number
  /** The number of pages whose address both sides know; `disagreeing` is how many of them differ. */
  compared: number
  disagreeing: number
}

const empty = (): Summary => ({
  slots: 0,
  memory: 0,
  resident: 0,
  swapped: 0,
  hostHuge: 0,
  mapped: { total: 0, small: 0, huge2M: 0, huge1G: 0 },
  hugeOnHostOnly: 0,
  hugeInSecondStageOnly: 0,
  whySmall: {},
  mappedNotResident: 0,
  compared: 0,
  disagreeing: 0
})

const page = levelSize(1)

function count(summary: Summary, table: Tables, row: number): void {
  const host = table.host[row] as number
  const level = table.kind[row] === 4 ? 0 : (table.level[row] as number)
  const hostHuge = (host & hostBits.huge) !== 0
  if (host & hostBits.present) summary.resident += page
  if (host & hostBits.swapped) summary.swapped += page
  if (hostHuge && summary.hostHuge !== null) summary.hostHuge += page
  if (level === 0) return
  summary.mapped.total += page
  if (level === 1) summary.mapped.small += page
  else if (level === 2) summary.mapped.huge2M += page
  else summary.mapped.huge1G += page
  if (!(host & hostBits.present) && table.evidence.host) summary.mappedNotResident += page
  if (level > 1 && !hostHuge && table.hugeKnown) summary.hugeInSecondStageOnly += page
  if (level === 1 && hostHuge) {
    summary.hugeOnHostOnly += page
    const slot = table.slots[table.slot[row] as number]
    if (!slot) throw argumentError('table', table, 'what tables() returned')
    const why = whySmall(slot, table.gpa[row] as number)
    summary.whySmall[why] = (summary.whySmall[why] ?? 0) + page
  }
}

/**
 * Counts a VM's pages by size and state. Among other things this answers the question "why is my EPT not huge?".
 * @example
 * summarize(tables(vm)).mapped.huge2M
 */
export function summarize(table: Tables): Summary {
  checkTables('table', table, ['gpa', 'host', 'kind', 'level', 'slot', 'slots', 'evidence'])
  const summary = empty()
  summary.slots = table.slots.length
  summary.compared = table.compared
  summary.disagreeing = table.disagreeing
  if (!table.hugeKnown) summary.hostHuge = null
  for (const slot of table.slots) if (slot.addressSpace === 0) summary.memory += slot.size
  for (let row = 0; row < table.gpa.length; row++) count(summary, table, row)
  return summary
}
