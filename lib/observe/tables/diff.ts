/** Finds what changed between two readings. */
import type { Gpa, Hpa } from '../../abi/addresses.js'
import { levelSize } from '../../x86/spte.js'
import { addressSpaceOf, checkTables, type Tables } from './tables.js'

/** What happened to a page's entry in the second stage. `host` means that only the host's side changed. */
export type ChangeKind = 'appeared' | 'vanished' | 'moved' | 'split' | 'merged' | 'permission' | 'host'

/** A change that consecutive pages from `gpa` on have in common. */
export interface Change {
  kind: ChangeKind
  gpa: Gpa
  size: number
  addressSpace: number
  /** The first page's entry. An `hpa` of 0 is unknown or absent; a `level` of 0 means no entry. */
  before: { hpa: Hpa; level: number }
  after: { hpa: Hpa; level: number }
}

interface Side {
  hpa: Hpa
  level: number
  permission: bigint
  host: number
}

const none: Side = { hpa: 0, level: 0, permission: 0n, host: 0 }
// The bits for read, write and execute in each format, without the bits that the processor sets by itself (accessed, dirty).
const permissions = { ept: 7n, x86: (1n << 63n) | 7n }

function sideOf(table: Tables, row: number): Side {
  const level = table.kind[row] === 4 ? 0 : (table.level[row] as number)
  return {
    hpa: table.secondHpa[row] as number,
    level,
    permission: level ? (table.spte[row] as bigint) & permissions[table.format] : 0n,
    host: table.hpa[row] as number
  }
}

function kindOf(before: Side, after: Side): ChangeKind | null {
  if (!before.level && !after.level) return before.host !== after.host ? 'host' : null
  if (!before.level) return 'appeared'
  if (!after.level) return 'vanished'
  if (before.level > after.level) return 'split'
  if (before.level < after.level) return 'merged'
  if (before.hpa !== after.hpa) return 'moved'
  if (before.permission !== after.permission) return 'permission'
  return before.host !== after.host ? 'host' : null
}

/** Compares two rows by address space and GPA. */
function order(before: Tables, left: number, after: Tables, right: number): number {
  if (left >= before.gpa.length) return right >= after.gpa.length ? 0 : 1
  if (right >= after.gpa.length) return -1
  return addressSpaceOf(before, left) - addressSpaceOf(after, right) || (before.gpa[left] as number) - (after.gpa[right] as number)
}

function* changedPages(before: Tables, after: Tables): Generator<Change> {
  for (let left = 0, right = 0; left < before.gpa.length || right < after.gpa.length; ) {
    const first = order(before, left, after, right)
    const was = first <= 0 ? sideOf(before, left) : none
    const is = first >= 0 ? sideOf(after, right) : none
    const [table, row] = first <= 0 ? [before, left] : [after, right]
    const kind = kindOf(was, is)
    if (kind) {
      const side = ({ hpa, level, host }: Side) => ({ hpa: kind === 'host' ? host : hpa, level })
      yield { kind, gpa: table.gpa[row] as number, size: levelSize(1), addressSpace: addressSpaceOf(table, row), before: side(was), after: side(is) }
    }
    if (first <= 0) left++
    if (first >= 0) right++
  }
}

function continues(last: Change | undefined, next: Change): last is Change {
  return (
    last !== undefined &&
    last.kind === next.kind &&
    last.addressSpace === next.addressSpace &&
    last.gpa + last.size === next.gpa &&
    last.before.level === next.before.level &&
    last.after.level === next.after.level
  )
}

/**
 * Returns what happened to a VM's pages between two readings. Neighbouring pages that changed alike make one change.
 * @example
 * const before = tables(vm)
 * page.advise('dontneed', 0, 4096)
 * diff(before, tables(vm))   // [] here: the guest never touched it
 */
export function diff(before: Tables, after: Tables): Change[] {
  const columns = ['gpa', 'hpa', 'host', 'kind', 'level', 'secondHpa', 'slot', 'slots', 'spte'] as const
  checkTables('before', before, columns)
  checkTables('after', after, columns)
  const changes: Change[] = []
  for (const change of changedPages(before, after)) {
    const last = changes.at(-1)
    if (continues(last, change)) last.size += change.size
    else changes.push(change)
  }
  return changes
}
