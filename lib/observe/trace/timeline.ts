/** Tells a trace as a story. */
import { argumentError, checkList } from '../../abi/arguments.js'
import { describeEvent } from './describe.js'
import type { TraceEvent } from './events.js'

const span = (nanoseconds: number) => {
  const microseconds = nanoseconds / 1000
  return microseconds < 10
    ? `${microseconds.toFixed(1)} us`
    : microseconds < 10_000
      ? `${microseconds.toFixed(0)} us`
      : `${(microseconds / 1000).toFixed(1)} ms`
}
const address = /0x[0-9a-f]+/g

/** Whether this is the guest's next access after something dropped the entry. It begins a story of its own, although it has a cause. */
const isReturn = (event: TraceEvent) =>
  event.kind === 'violation' || (event.kind === 'spte-set' && event.cause?.kind !== 'violation' && event.cause?.kind !== 'misconfig')

function origin(event: TraceEvent): TraceEvent {
  let first = event
  while (first.cause) first = first.cause
  return first
}

function nameOf(event: TraceEvent): string {
  if (event.kind === 'memslot') return `memslot ${event.did}`
  if (event.kind === 'mapping') return `mapping ${event.did}`
  return event.kind.replace('-', ' ')
}

const because = (event: TraceEvent) => (isReturn(event) && event.cause ? `, after ${nameOf(origin(event))}` : '')

/** One line, or several lines that differ only in addresses. */
interface Line {
  when: string
  indent: string
  first: string
  last: string
  alike: string
  count: number
}
/** An event without a cause, or the guest's next access, together with the events that it led to at once. */
interface Block {
  lines: Line[]
  count: number
}

const lineOf = (when: string, indent: string, text: string): Line => ({
  when,
  indent,
  first: text,
  last: text,
  alike: indent + text.replace(address, '..'),
  count: 1
})

function add(lines: Line[], line: Line): void {
  const before = lines.at(-1)
  if (before?.alike !== line.alike) lines.push(line)
  else {
    before.last = line.last
    before.count++
  }
}

const sameBlock = (one: Block, other: Line[]) =>
  one.lines.length === other.length && one.lines.every(({ alike, count }, index) => alike === other[index]?.alike && count === other[index]?.count)

/** Formats the first and the last address: `gpa 0x1000 … 0x4000`. */
function rangeText(first: string, last: string): string {
  const ends = last.match(address) ?? []
  let index = 0
  return first.replace(address, (start) => {
    const end = ends[index++]
    return end === undefined || end === start ? start : `${start} … ${end}`
  })
}

function blockOf(root: TraceEvent, effects: Map<TraceEvent, TraceEvent[]>): Line[] {
  const lines = [lineOf(`${root.elapsed.toFixed(3)} ms`, '', describeEvent(root) + because(root))]
  const told: [event: TraceEvent, depth: number][] = []
  const collect = (event: TraceEvent, depth: number) => {
    for (const effect of effects.get(event) ?? []) {
      told.push([effect, depth])
      collect(effect, depth + 1)
    }
  }
  collect(root, 1)
  told.sort(([one], [other]) => one.time - other.time)
  for (const [event, depth] of told) add(lines, lineOf(`+${span(event.time - root.time)}`, `${'  '.repeat(depth)}-> `, describeEvent(event)))
  return lines
}

const printLine = ({ when, indent, first, last, count }: Line, times: number) =>
  `${when.padStart(13)}  ${indent}${rangeText(first, last)}${count * times > 1 ? ` x${count * times}` : ''}`
const printBlock = ({ lines, count }: Block) => lines.map((line, index) => printLine(line, index === 0 ? count : 1)).join('\n')

function checkEvent(event: TraceEvent): TraceEvent {
  const { time, elapsed } = (event ?? {}) as Partial<TraceEvent>
  if (typeof time !== 'number' || typeof elapsed !== 'number') throw argumentError('events', event, 'events of a trace')
  return event
}

/**
 * Tells the story of a trace. Each event without a cause, and each access of the guest to a dropped page, begins a paragraph: what it led to, and how
 * long after. Consecutive paragraphs that differ only in addresses are told once, with their number.
 * @example
 * using recording = trace(vm)
 * vm.memslots.create({ gpa: 0xa000, mapping: page }).move(0xe000)
 * console.log(timeline(recording.drain()))
 */
export function timeline(events: readonly TraceEvent[]): string {
  const effects = new Map<TraceEvent, TraceEvent[]>()
  const here = new Set(checkList('events', events, Number.MAX_SAFE_INTEGER).map(checkEvent))
  const roots: TraceEvent[] = []
  for (const event of here) {
    const siblings = event.cause && !isReturn(event) && here.has(event.cause) ? (effects.get(event.cause) ?? []) : roots
    siblings.push(event)
    if (event.cause && siblings !== roots) effects.set(event.cause, siblings)
  }
  const blocks: Block[] = []
  for (const root of roots) {
    const lines = blockOf(root, effects)
    const before = blocks.at(-1)
    if (before && sameBlock(before, lines)) {
      before.count++
      before.lines.forEach((line, index) => (line.last = lines[index]!.last))
    } else blocks.push({ lines, count: 1 })
  }
  return blocks.map(printBlock).join('\n')
}
