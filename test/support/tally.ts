/** What a trace told of the place that the stimuli work on. */
import type { TraceEvent } from 'node-kvm/observe'
import { base, room } from './stimuli.js'

/** Counts the events that concern the place, by kind and by what they did; if another process caused them, its name is added. */
export function tally(events: readonly TraceEvent[], nameOf: (pid: number) => string): Record<string, number> {
  const counts: Record<string, number> = {}
  const inside = (address: number) => address >= base && address < base + room
  const leaf = (level: number) => (level > 1 ? ` level ${level}` : '')
  for (const event of events) {
    const key = keyOf(event)
    if (key === undefined) continue
    const whole = event.process === process.pid ? key : `${key} by ${nameOf(event.process)}`
    counts[whole] = (counts[whole] ?? 0) + 1
  }
  return counts

  function keyOf(event: TraceEvent): string | undefined {
    switch (event.kind) {
      case 'violation':
      case 'misconfig':
        return event.gpa !== null && inside(event.gpa) ? event.kind : undefined
      case 'spte-set':
        if (!inside(event.gfn * 4096)) return undefined
        return event.mmio ? 'spte-set MMIO' : `spte-set${leaf(event.level)}`
      case 'spte-change':
        if (!inside(event.gfn * 4096) || event.after.present || (event.level > 1 && !event.before.huge)) return undefined
        return `spte-drop${leaf(event.level)}`
      case 'notifier-unmap':
        return event.gpas?.some((hit) => inside(hit.gpa)) ? event.kind : undefined
      case 'mmio':
        return inside(event.gpa) && event.access !== 'unsatisfied-read' ? `mmio ${event.access}` : undefined
      case 'memslot':
        return `memslot ${event.did}`
      case 'zap-all':
      case 'huge-split':
        return event.kind
      default:
        return undefined
    }
  }
}
