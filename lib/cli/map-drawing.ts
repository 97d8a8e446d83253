/** `node-kvm map --svg`: guest-physical space against host memory, coloured by page size and state. */
import { hex } from '../abi/arguments.js'
import { levelSize } from '../abi/spte.js'
import { hostBits } from '../translation/host-page.js'
import type { Tables } from '../translation/tables.js'

const width = 1000
const left = 150
const barHeight = 28
const page = levelSize(1)

const colours = {
  small: ['#4c78a8', '4 KiB entry'],
  huge2M: ['#54a24b', '2 MiB entry'],
  huge1G: ['#8cd17d', '1 GiB entry'],
  hugeOnHostOnly: ['#f58518', '4 KiB entry, huge on the host'],
  notMapped: ['#bab0ac', 'on the host, not in the second stage'],
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

/** Pages in a row that look alike and lie side by side on both sides. */
interface Run {
  state: State
  gpa: number
  hpa: number
  size: number
}

function runsOf(table: Tables): Run[] {
  const runs: Run[] = []
  for (let row = 0; row < table.gpa.length; row++) {
    const state = stateOf(table, row)
    const gpa = table.gpa[row] as number
    const hpa = (table.hpa[row] as number) || (table.secondHpa[row] as number)
    const last = runs.at(-1)
    if (last && last.state === state && last.gpa + last.size === gpa && (hpa === 0 ? last.hpa === 0 : last.hpa + last.size === hpa)) last.size += page
    else runs.push({ state, gpa, hpa, size: page })
  }
  return runs
}

/** Places addresses on a line, leaving out what nothing uses. */
function scale(ranges: { start: number; end: number }[]): {
  place: (address: number) => number
  marks: { at: number; start: number; end: number }[]
} {
  const sorted = ranges.toSorted((one, other) => one.start - other.start)
  const joined: { start: number; end: number }[] = []
  for (const { start, end } of sorted) {
    const last = joined.at(-1)
    if (last && start <= last.end + (last.end - last.start) / 4) last.end = Math.max(last.end, end)
    else joined.push({ start, end })
  }
  const total = joined.reduce((sum, { start, end }) => sum + (end - start), 0) || 1
  const gap = joined.length > 1 ? Math.min(6, (width * 0.2) / (joined.length - 1)) : 0
  const factor = (width - gap * (joined.length - 1)) / total
  let at = left
  const marks = joined.map(({ start, end }) => {
    const mark = { at, start, end }
    at += (end - start) * factor + gap
    return mark
  })
  const place = (address: number) => {
    const mark = marks.findLast(({ start }) => start <= address) ?? marks[0]
    return mark ? mark.at + (Math.min(address, mark.end) - mark.start) * factor : left
  }
  return { place, marks }
}

const escapeText = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const text = (x: number, y: number, what: string, size = 12) =>
  `<text x="${x.toFixed(1)}" y="${y}" font-family="monospace" font-size="${size}">${escapeText(what)}</text>`

/** @internal */
export function drawTables(table: Tables, title: string): string {
  const runs = runsOf(table)
  const guest = scale(table.slots.filter(({ addressSpace }) => addressSpace === 0).map(({ gpa, size }) => ({ start: gpa, end: gpa + size })))
  const host = scale(runs.filter(({ hpa }) => hpa !== 0).map(({ hpa, size }) => ({ start: hpa, end: hpa + size })))
  const top = 90
  const bottom = 330
  const box = (x: number, y: number, end: number, colour: string) =>
    `<rect x="${x.toFixed(2)}" y="${y}" width="${Math.max(end - x, 0.5).toFixed(2)}" height="${barHeight}" fill="${colour}"/>`
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width + left + 20}" height="480" viewBox="0 0 ${width + left + 20} 480"><rect width="100%" height="100%" fill="white"/>`,
    text(20, 30, title, 16),
    text(20, top + 19, 'guest (GPA)'),
    text(20, bottom + 19, 'host (HPA)')
  ]
  for (const { at, start, end } of guest.marks)
    lines.push(
      `<rect x="${at.toFixed(2)}" y="${top}" width="${(guest.place(end) - at).toFixed(2)}" height="${barHeight}" fill="#eeeeee" stroke="#cccccc"><title>${hex(start)}-${hex(end)}</title></rect>`
    )
  for (const { state, gpa, hpa, size } of runs) {
    const [colour] = colours[state]
    const [begin, end] = [guest.place(gpa), guest.place(gpa + size)]
    lines.push(box(begin, top, end, colour))
    if (hpa === 0) continue
    const [hostBegin, hostEnd] = [host.place(hpa), host.place(hpa + size)]
    const points = [
      [begin, top + barHeight],
      [end, top + barHeight],
      [hostEnd, bottom],
      [hostBegin, bottom]
    ].map(([x, y]) => `${(x as number).toFixed(2)},${y}`)
    lines.push(`<polygon points="${points.join(' ')}" fill="${colour}" fill-opacity="0.25"/>`, box(hostBegin, bottom, hostEnd, colour))
  }
  const ends = (marks: typeof guest.marks, y: number) =>
    [marks[0], marks.at(-1)].flatMap((mark, index) => (mark ? [text(index ? width + left - 110 : left, y, hex(index ? mark.end : mark.start))] : []))
  lines.push(...ends(guest.marks, top - 8), ...ends(host.marks, bottom + barHeight + 16))
  Object.values(colours).forEach(([colour, what], index) =>
    lines.push(
      `<rect x="${left + (index % 4) * 250}" y="${400 + Math.floor(index / 4) * 24}" width="14" height="14" fill="${colour}"/>`,
      text(left + 20 + (index % 4) * 250, 412 + Math.floor(index / 4) * 24, what)
    )
  )
  return `${lines.join('\n')}\n</svg>\n`
}
