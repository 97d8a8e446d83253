/** `node-kvm map --svg`: draws guest-physical space and host memory, coloured by page size and state. */
import { hex, hexRange } from '../abi/arguments.js'
import { xml } from '../abi/text.js'
import { hostBits } from '../observe/tables/host-page.js'
import type { TableSlot } from '../observe/tables/table-slot.js'
import type { Tables } from '../observe/tables/tables.js'
import { levelSize } from '../x86/spte.js'
import { type Axis, fitLabels, layAxis } from './map-axis.js'
import { bytes } from './words.js'

const left = 120
const width = 1160
const right = left + width
const barHeight = 30
const guestTop = 118
const hostTop = 400
const pageWidth = right + 30
const pageHeight = 500
const letterWidth = 7.25
/** The largest number of runs that are joined across, so that the picture of a fragmented VM does not have many megabytes. Larger runs come first. */
const mostRibbons = 1500
const page = levelSize(1)

const colours = {
  small: ['#4c78a8', '4 KiB entry'],
  huge2M: ['#2f8f4e', '2 MiB entry'],
  huge1G: ['#8cd17d', '1 GiB entry'],
  hugeOnHostOnly: ['#f58518', '4 KiB entry, huge on the host'],
  notMapped: ['#a8a29e', 'on the host, not in the second stage'],
  swapped: ['#b279a2', 'swapped out'],
  mmio: ['#e45756', 'noted as MMIO']
} as const
type State = keyof typeof colours

function stateOf(table: Tables, row: number): State {
  const host = table.host[row] as number
  const level = table.level[row] as number
  if (table.kind[row] === 4) return 'mmio'
  if (level > 1) return level === 2 ? 'huge2M' : 'huge1G'
  if (level === 1) return host & hostBits.huge ? 'hugeOnHostOnly' : 'small'
  return host & hostBits.swapped ? 'swapped' : 'notMapped'
}

/** Consecutive pages that look alike and are consecutive on both sides. */
interface Run {
  state: State
  gpa: number
  /** The HPA, or 0 if it is unknown or there is none. */
  hpa: number
  size: number
}

/** Returns the runs of address space 0. */
function runsOf(table: Tables): Run[] {
  const runs: Run[] = []
  for (let row = 0; row < table.gpa.length; row++) {
    if (table.slots[table.slot[row] as number]?.addressSpace !== 0) continue
    const state = stateOf(table, row)
    const gpa = table.gpa[row] as number
    const hpa = (table.hpa[row] as number) || (table.secondHpa[row] as number)
    const last = runs.at(-1)
    if (last && last.state === state && last.gpa + last.size === gpa && (hpa === 0 ? last.hpa === 0 : last.hpa + last.size === hpa)) last.size += page
    else runs.push({ state, gpa, hpa, size: page })
  }
  return runs
}

/** An order for runs of equal size that prefers no part of the memory (Knuth's multiplicative hash). */
const scattered = ({ gpa }: Run) => Number((BigInt(gpa / page) * 2654435761n) & 0xffff_ffffn)

const text = (x: number, y: number, what: string, style = '') => `<text x="${x.toFixed(1)}" y="${y}"${style && ` ${style}`}>${xml(what)}</text>`
const describeRun = ({ state, gpa, hpa, size }: Run) =>
  `gpa ${hexRange(gpa, size)}${hpa ? ` -> hpa ${hexRange(hpa, size)}` : ''}: ${bytes(size)}, ${colours[state][1]}`

function box(from: number, to: number, top: number, colour: string, title: string): string {
  const place = `x="${from.toFixed(2)}" y="${top}" width="${Math.max(to - from, 0.6).toFixed(2)}" height="${barHeight}"`
  return `<rect ${place} fill="${colour}"><title>${xml(title)}</title></rect>`
}

/** Draws boxes of one colour side by side, none narrower than a pixel. If several share a pixel, the first one stands for all. */
function boxes(runs: readonly Run[], axis: Axis, start: (run: Run) => number, top: number): string[] {
  const drawn: string[] = []
  let until = -1
  for (const run of runs) {
    const from = axis.place(start(run))
    const to = axis.place(start(run) + run.size)
    if (to <= until) continue
    until = Math.max(to, from + 0.6)
    drawn.push(box(from, to, top, colours[run.state][0], describeRun(run)))
  }
  return drawn
}

function ribbon(run: Run, guest: Axis, host: Axis): string {
  const corners = [
    [guest.place(run.gpa), guestTop + barHeight],
    [guest.place(run.gpa + run.size), guestTop + barHeight],
    [host.place(run.hpa + run.size), hostTop],
    [host.place(run.hpa), hostTop]
  ]
  const [colour] = colours[run.state]
  const points = corners.map(([x, y]) => `${(x as number).toFixed(1)},${y}`).join(' ')
  return `<polygon points="${points}" fill="${colour}" fill-opacity="0.28" stroke="${colour}" stroke-opacity="0.35" stroke-width="0.5"><title>${xml(describeRun(run))}</title></polygon>`
}

/** Draws the frames of an axis's parts, and the addresses of their beginnings and of the last end, as far as there is room. */
function frames(axis: Axis, top: number, labelAt: number): string[] {
  const lines = axis.parts.map(
    ({ from, to, start, end }) =>
      `<rect x="${from.toFixed(2)}" y="${top}" width="${(to - from).toFixed(2)}" height="${barHeight}" fill="#f3f2ef" stroke="#c9c5be"><title>${xml(hexRange(start, end - start))}</title></rect>`
  )
  const last = axis.parts.at(-1)
  if (!last) return lines
  const endText = hex(last.end)
  const endAt = right - endText.length * letterWidth
  const starts = axis.parts.map(({ from, to, start }) => ({ at: from, width: widthOf(hex(start)), text: hex(start), weight: to - from }))
  return [...lines, ...fitLabels(starts, endAt - letterWidth).map((label) => text(label.at, labelAt, label.text)), text(endAt, labelAt, endText)]
}

const widthOf = (label: string) => (label.length + 1.5) * letterWidth

/** Names the slots above the guest's memory. */
function slotMarks(slots: readonly TableSlot[], guest: Axis): string[] {
  const labels = slots.map((slot) => {
    const label = `slot ${slot.id}${slot.logDirty ? ' (dirty-logged)' : ''}${slot.readonly ? ' (read-only)' : ''}`
    return { at: guest.place(slot.gpa), width: widthOf(label), text: label, weight: slot.size }
  })
  return [
    ...labels.map(({ at }) => {
      const x = at.toFixed(2)
      return `<line x1="${x}" x2="${x}" y1="${guestTop - 5}" y2="${guestTop + barHeight}" stroke="#57534e" stroke-width="0.7"/>`
    }),
    ...fitLabels(labels, right).map((label) => text(label.at + 3, guestTop - 8, label.text, 'fill="#57534e"'))
  ]
}

/** Explains the colours, and says how much memory has each. Unused colours are left out. */
function legend(runs: readonly Run[]): string[] {
  const sizes = new Map<State, number>()
  for (const { state, size } of runs) sizes.set(state, (sizes.get(state) ?? 0) + size)
  let at = left
  return (Object.keys(colours) as State[]).flatMap((state) => {
    const size = sizes.get(state)
    if (size === undefined) return []
    const [colour, what] = colours[state]
    const label = `${what}: ${bytes(size)}`
    const place = at
    at += label.length * letterWidth + 48
    return [`<rect x="${place}" y="${pageHeight - 42}" width="14" height="14" rx="2" fill="${colour}"/>`, text(place + 20, pageHeight - 31, label)]
  })
}

/** @internal Draws the picture; `title` and `subtitle` are written above it. */
export function drawTables(table: Tables, title: string, subtitle: string): string {
  const runs = runsOf(table)
  const slots = table.slots.filter(({ addressSpace }) => addressSpace === 0)
  const onHost = runs.filter(({ hpa }) => hpa !== 0)
  const guest = layAxis(
    slots.map(({ gpa, size }) => ({ start: gpa, end: gpa + size })),
    left,
    right
  )
  const host = layAxis(
    onHost.map(({ hpa, size }) => ({ start: hpa, end: hpa + size })),
    left,
    right
  )
  const joined =
    onHost.length > mostRibbons
      ? onHost.toSorted((one, other) => other.size - one.size || scattered(one) - scattered(other)).slice(0, mostRibbons)
      : onHost
  const notes = [
    ...(joined.length < onHost.length
      ? [`the ${onHost.length - joined.length} smallest of ${onHost.length} runs of pages are not joined across`]
      : []),
    ...(table.evidence.torn ? ['TORN: the memslots never kept still while they were read'] : []),
    ...table.evidence.missing
  ]
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" width="${pageWidth}" height="${pageHeight}" viewBox="0 0 ${pageWidth} ${pageHeight}" font-family="ui-monospace, monospace" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>',
    text(20, 32, title, 'font-size="16" font-weight="bold"'),
    text(20, 54, subtitle, 'fill="#57534e"'),
    ...notes.slice(0, 1).map((note) => text(20, 74, note, 'fill="#b91c1c"')),
    text(20, guestTop + 13, 'guest', 'font-weight="bold"'),
    text(20, guestTop + 27, 'GPA'),
    text(20, hostTop + 13, 'host', 'font-weight="bold"'),
    text(20, hostTop + 27, 'HPA'),
    ...frames(guest, guestTop, guestTop - 24),
    ...frames(host, hostTop, hostTop + barHeight + 16),
    ...joined.map((run) => ribbon(run, guest, host)),
    ...boxes(runs, guest, ({ gpa }) => gpa, guestTop),
    ...boxes(
      onHost.toSorted((one, other) => one.hpa - other.hpa),
      host,
      ({ hpa }) => hpa,
      hostTop
    ),
    ...slotMarks(slots, guest),
    ...legend(runs)
  ].join('\n')}\n</svg>\n`
}
