/** Describes events for people. */
import type { Gpa, Hva } from '../../abi/addresses.js'
import { argumentError, hex, hexRange } from '../../abi/arguments.js'
import { accessText, type Spte } from '../../x86/spte.js'
import type { HitRange, TraceEvent } from './events.js'

const sizeText = (bytes: number) => {
  for (const [unit, name] of [
    [2 ** 30, 'GiB'],
    [2 ** 20, 'MiB'],
    [2 ** 10, 'KiB']
  ] as const)
    if (bytes >= unit && bytes % unit === 0) return `${bytes / unit} ${name}`
  return `${bytes} bytes`
}
const entryText = (entry: Spte) => (entry.present ? `${accessText(entry)} hpa ${hex(entry.hpa)}` : 'none')
const rowText = (row: { gpa: Gpa; size: number; hva: Hva } | null) => (row ? `gpa ${hexRange(row.gpa, row.size)} hva ${hex(row.hva)}` : 'none')
const gpaText = (gpas: readonly HitRange[] | null) =>
  gpas === null ? '' : ` -> ${gpas.map(({ slot, gpa, size }) => `gpa ${hexRange(gpa, size)} (slot ${slot})`).join(', ') || 'no memslot'}`
const growthText = (change: number | number[]) =>
  Array.isArray(change) ? `[${change.filter((value) => value !== 0).length} buckets]` : `${change < 0 ? '' : '+'}${change}`

/** Describes what happened, without the time: `violation gpa 0xa000 read (not present) at rip 0x1004`. */
export function describeEvent(event: TraceEvent): string {
  try {
    return textOf(event)
  } catch (error) {
    // An event that was made by hand may lack any field.
    if (error instanceof TypeError) throw argumentError('event', event, 'an event of a trace')
    throw error
  }
}

function textOf(event: TraceEvent): string {
  switch (event.kind) {
    case 'violation':
      return `violation gpa ${hex(event.gpa)} ${event.access} (${event.present ? 'not allowed' : 'not present'}) at rip ${hex(event.rip)}`
    case 'guest-fault':
      return `guest fault at ${hex(event.address)}, error code ${hex(event.errorCode)}, at rip ${hex(event.rip)}`
    case 'misconfig':
      return `misconfig gpa ${event.gpa === null ? 'unknown' : hex(event.gpa)} (an MMIO entry) at rip ${hex(event.rip)}`
    case 'spte-set':
      return `spte gfn ${hex(event.gfn)} level ${event.level} set: ${event.mmio ? 'MMIO' : entryText(event.decoded)}`
    case 'spte-change':
      return `spte gfn ${hex(event.gfn)} level ${event.level}: ${entryText(event.before)} -> ${entryText(event.after)}`
    case 'zap-all':
      return 'zap every entry of the VM'
    case 'zap-page':
      return `zap the level ${event.level} table at gfn ${hex(event.gfn)}`
    case 'huge-split':
      return `split the level ${event.level} entry at gfn ${hex(event.gfn)}`
    case 'notifier-unmap':
      return `notifier unmap ${hexRange(event.hva, event.size)}${gpaText(event.gpas)}`
    case 'notifier-age':
      return `notifier age ${hexRange(event.hva, event.size)}${gpaText(event.gpas)}`
    case 'exit':
      return `exit, reason ${hex(event.reason)}, at rip ${hex(event.rip)}`
    case 'entry':
      return `entry at rip ${hex(event.rip)}`
    case 'mmio':
      return `mmio ${event.access} gpa ${hex(event.gpa)} ${event.length} bytes`
    case 'pio':
      return `port ${event.access} ${hex(event.port)} ${event.count} x ${event.size} bytes`
    case 'emulate':
      return `emulate the instruction at ${hex(event.rip)}${event.failed ? ': failed' : ''}`
    case 'dirty-ring':
      return `dirty ring ${event.did}`
    case 'memslot':
      return `memslot ${(event.after ?? event.before)?.id} ${event.did}: ${rowText(event.before)} -> ${rowText(event.after)}`
    case 'mapping':
      return `mapping ${event.did} ${hex(event.hva)} ${sizeText(event.size)}`
    case 'statistics':
      return `statistics of ${event.of}: ${Object.entries(event.changes)
        .map(([name, change]) => `${name} ${growthText(change)}`)
        .join(', ')}`
    case 'raw':
      return `${event.tracepoint} ${Object.entries(event.raw)
        .map(([name, value]) => `${name} ${hex(value)}`)
        .join(', ')}`
    default:
      throw argumentError('event', event, 'an event of a trace')
  }
}
