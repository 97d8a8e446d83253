/** An axis of addresses. It leaves out unused ranges, and shows every used range large enough to be seen. */

/** The addresses from `start` up to `end`. */
export interface AddressRange {
  start: number
  end: number
}

/** One part of the axis: its place in the picture, and the addresses that it shows. */
export interface Part extends AddressRange {
  from: number
  to: number
}

export interface Axis {
  parts: Part[]
  /** Returns the place of an address. */
  place(address: number): number
}

const least = 10
const widestGap = 10
/** The largest number of parts. If there are more, the closest ones are joined. */
const mostParts = 60

/** Joins used ranges, in ascending order, if the gap between them is smaller than `most`. */
function join(ranges: readonly AddressRange[], most: (last: AddressRange) => number): AddressRange[] {
  const joined: AddressRange[] = []
  for (const { start, end } of ranges) {
    const last = joined.at(-1)
    if (last && start <= last.end + most(last)) last.end = Math.max(last.end, end)
    else joined.push({ start, end })
  }
  return joined
}

function joinDown(ranges: readonly AddressRange[]): AddressRange[] {
  const sorted = ranges.toSorted((one, other) => one.start - other.start)
  let joined = join(sorted, ({ start, end }) => (end - start) / 4)
  for (let most = 4096; joined.length > mostParts; most *= 4) joined = join(joined, () => most)
  return joined
}

/** Returns the width of each part: in proportion to its size, but at least {@link least}. */
function widths(sizes: readonly number[], room: number): number[] {
  const small = new Set<number>()
  for (;;) {
    const rest = sizes.reduce((sum, size, index) => (small.has(index) ? sum : sum + size), 0) || 1
    const factor = (room - small.size * least) / rest
    const found = sizes.findIndex((size, index) => !small.has(index) && size * factor < least)
    if (found < 0) return sizes.map((size, index) => (small.has(index) ? least : size * factor))
    small.add(found)
  }
}

/** Places the ranges between two ends of the picture. */
export function layAxis(ranges: readonly AddressRange[], left: number, right: number): Axis {
  const joined = joinDown(ranges)
  const gap = joined.length > 1 ? Math.min(widestGap, ((right - left) * 0.2) / (joined.length - 1)) : 0
  const drawn = widths(
    joined.map(({ start, end }) => end - start),
    right - left - gap * (joined.length - 1)
  )
  let at = left
  const parts = joined.map((range, index) => {
    const from = at
    const to = from + (drawn[index] as number)
    at = to + gap
    return { ...range, from, to }
  })
  const place = (address: number) => {
    const part = parts.findLast(({ start }) => start <= address) ?? parts[0]
    if (!part) return left
    return part.from + (Math.min(address - part.start, part.end - part.start) / (part.end - part.start)) * (part.to - part.from)
  }
  return { parts, place }
}

/** A label: its text, its place, and its importance. */
export interface Label {
  at: number
  width: number
  text: string
  weight: number
}

/** Chooses the labels for which there is room before `end`, the most important first. */
export function fitLabels(labels: readonly Label[], end: number): Label[] {
  const placed: Label[] = []
  for (const label of labels.toSorted((one, other) => other.weight - one.weight))
    if (label.at + label.width <= end && placed.every(({ at, width }) => label.at + label.width <= at || at + width <= label.at)) placed.push(label)
  return placed
}
