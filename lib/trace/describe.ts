/** Events as people read them. */
import { hex, hexRange } from '../abi/arguments.js'
import { accessText, type Spte } from '../abi/spte.js'
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
const rowText = (row: { gpa: number; size: number; hva: number } | null) => (row ? `gpa ${hexRange(row.gpa, row.size)} hva ${hex(row.hva)}` : 'none')
const gpaText = (gpas: readonly HitRange[]) =>
  gpas.map(({ slot, gpa, size }) => `gpa ${hexRange(gpa, size)} (slot ${slot})`).join(', ') || 'no memslot'

/** What happened, without when: `violation gpa 0xa000 read (not present) at rip 0x1004`. */
export function describeEvent(event: TraceEvent): string {
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
      return `notifier unmap ${hexRange(event.hva, event.size)} -> ${gpaText(event.gpas)}`
    case 'notifier-age':
      return `notifier age ${hexRange(event.hva, event.size)} -> ${gpaText(event.gpas)}`
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
  }
}

const lapse = (from: TraceEvent, to: TraceEvent) => `+${((to.time - from.time) / 1000).toFixed(to.time - from.time < 10_000 ? 1 : 0)} us`

// Without the addresses, so that the entries of a run of pages become one line.
const manyAlike = new Set(['spte-set', 'spte-change', 'zap-page', 'violation', 'guest-fault'])
function family(event: TraceEvent): string {
  const text = describeEvent(event)
  return manyAlike.has(event.kind) ? text.replaceAll(/(gfn|gpa|hpa|at|rip) 0x[0-9a-f]+/g, '$1 ..') : text
}

interface Line {
  when: string
  indent: string
  text: string
  family: string
  count: number
}

/** Happenings of one family in a row are told once, with their number. */
function tell(lines: Line[], event: TraceEvent, when: string, indent: string): void {
  const last = lines.at(-1)
  const alike = indent + family(event)
  if (last?.family === alike) last.count++
  else lines.push({ when, indent, text: describeEvent(event), family: alike, count: 1 })
}

const print = ({ when, indent, text, family, count }: Line) => `${when.padStart(13)}  ${count === 1 ? indent + text : `${family} x${count}`}`

/**
 * The story of a trace: each thing that began of itself, and below it what it led to, with the time since.
 * @example
 * using trace = vm.trace()
 * vm.memslots.create({ gpa: 0xa000, mapping: page }).move(0xe000)
 * console.log(timeline(trace.drain()))
 */
export function timeline(events: readonly TraceEvent[]): string {
  const effects = new Map<TraceEvent, TraceEvent[]>()
  const here = new Set(events)
  const roots: TraceEvent[] = []
  for (const event of events) {
    const siblings = event.cause && here.has(event.cause) ? (effects.get(event.cause) ?? []) : roots
    siblings.push(event)
    if (event.cause && siblings !== roots) effects.set(event.cause, siblings)
  }
  const lines: Line[] = []
  const tellEffects = (event: TraceEvent, root: TraceEvent, indent: string) => {
    for (const effect of effects.get(event) ?? []) {
      tell(lines, effect, lapse(root, effect), `${indent}-> `)
      tellEffects(effect, root, `  ${indent}`)
    }
  }
  for (const root of roots) {
    tell(lines, root, `${root.elapsed.toFixed(3)} ms`, '')
    tellEffects(root, root, '  ')
  }
  return lines.map(print).join('\n')
}
