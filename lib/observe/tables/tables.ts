/** Reads the three tables of a VM together, as columns. */
import { inspect } from 'node:util'
import { isBigUint64Array, isFloat64Array, isUint8Array, isUint16Array, isUint32Array } from 'node:util/types'
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOptions } from '../../abi/arguments.js'
import type { LeafColumns, PageColumns, SlotColumns } from '../../abi/columns.js'
import { errnoName, exhaustion, KvmError } from '../../abi/errors.js'
import { making } from '../../abi/exhausted.js'
import { native } from '../../abi/native.js'
import { shown } from '../../abi/text.js'
import type { Memslots } from '../../memory/memslots.js'
import type { SpteFormat } from '../../x86/spte.js'
import { describeHost, spteFormat } from '../host.js'
import { type Evidence, evidence } from './evidence.js'
import { folderOf, foreignProc } from './process-folder.js'
import { type ReadVm, readVms } from './reader.js'
import { whyNoMirror } from './refusal.js'
import { type ListedSlot, slotList } from './table-slot.js'

export type { LeafColumns, PageColumns } from '../../abi/columns.js'

/**
 * The three tables. There is one row for each 4 KiB page that the host has or the second stage maps, ordered by address space and GPA. An `hpa` of 0
 * is unknown or absent; a `level` of 0 means that the second stage has no entry. If several entries map one page (under shadow paging), the row shows
 * one of them, and `leaves` has all.
 */
export interface Tables extends Omit<PageColumns, 'framesHidden' | 'passedOver' | 'scanned' | 'impossibleSlots'> {
  /** The memslots. Code that copies objects by their properties (structuredClone()) finds none in these: see {@link ListedSlot}. */
  slots: ListedSlot[]
  /** The last-level entries of the second stage. */
  leaves: LeafColumns
  format: SpteFormat
  /** Whether the host's huge pages are known. */
  hugeKnown: boolean
  evidence: Evidence
}

/** Where a VM is found again. */
export interface Subject {
  pid: number
  fd: number
  kvm?: bigint
  /** For a VM of this process: its memslots as this library keeps them, in case the kernel's cannot be read. */
  own?: Memslots
  /** For a VM of this process: returns the second stage from another source than the kernel's tables. */
  mirror?: () => MirrorReading
}

/** @internal The second stage from such a source, at one moment. */
export interface MirrorReading {
  leaves: () => LeafColumns
  /** While this number stays equal, the entries are equal. */
  changes: number
  lost: number
  missing: string[]
}

/** How often to read again if pages were taken back between reading the second and the third table. */
const mostRounds = 5
const noSlots = (): SlotColumns => ({
  gpa: new Float64Array(),
  size: new Float64Array(),
  hva: new Float64Array(),
  flags: new Uint32Array(),
  id: new Int16Array(),
  addressSpace: new Uint8Array(),
  guestMemfd: new Uint8Array()
})
const noLeaves = (): LeafColumns => ({
  gpa: new Float64Array(),
  hpa: new Float64Array(),
  spte: new BigUint64Array(),
  role: new Uint32Array(),
  level: new Uint8Array(),
  addressSpace: new Uint8Array(),
  kind: new Uint8Array()
})

function ownSlots(memslots: Memslots): SlotColumns {
  const list = [...memslots]
  const columns = noSlots()
  return {
    ...columns,
    gpa: Float64Array.from(list, ({ gpa }) => gpa),
    size: Float64Array.from(list, ({ size }) => size),
    hva: Float64Array.from(list, ({ hva }) => hva),
    flags: Uint32Array.from(list, ({ logDirty, readonly }) => (logDirty ? 1 : 0) | (readonly ? 2 : 0)),
    id: Int16Array.from(list, ({ id }) => id),
    addressSpace: new Uint8Array(list.length),
    guestMemfd: new Uint8Array(list.length)
  }
}

/** @internal The result of reading a VM once. */
export interface Look {
  slots: SlotColumns
  leaves: LeafColumns
  evidence: Evidence
  vm: ReadVm | null
}

function gone({ pid, fd }: Subject): KvmError {
  return new KvmError('closed', `the VM behind descriptor ${fd} of process ${pid} is gone: it was closed, or the process ended`, { pid, fd })
}

/** @internal */
export function look(subject: Subject, tables: boolean): Look {
  const { pid, fd, kvm, own } = subject
  const found = readVms({ pid, fd, tables })
  if (typeof found === 'string') {
    if (!own) throw new KvmError('unavailable', `the VM of process ${pid} cannot be read: ${found}`, { pid })
    return {
      slots: ownSlots(own),
      leaves: noLeaves(),
      vm: null,
      evidence: evidence({
        source: 'memslots',
        missing: [`the second stage was not read: ${found}${whyNoMirror(describeHost()) ? '' : '; mirror(vm) follows it by trace events'}`]
      })
    }
  }
  const vm = found.find((each) => !each.ended && (kvm === undefined || each.kvm === kvm))
  if (!vm) throw gone(subject)
  const missing =
    vm.flags & 4
      ? ['the second stage was not read: without a running vCPU or a readable /proc/kallsyms nobody knows where the kernel maps memory']
      : []
  return {
    slots: vm.slots,
    leaves: vm.leaves,
    vm,
    evidence: evidence({
      source: 'bpf',
      secondStage: tables && missing.length === 0 ? 'bpf' : null,
      torn: vm.torn,
      lost: vm.lost,
      attempts: vm.attempts,
      missing
    })
  }
}

/** Adds the host's side. Without the permission to read it, the rows contain only the second stage. */
function join({ pid }: Subject, seen: Look, from: number, to: number): PageColumns {
  const path = folderOf(pid)
  if (path === null) {
    seen.evidence.missing.push(`the host page tables were not read: ${foreignProc}`)
    return native.joinTables(null, seen.slots, seen.leaves, from, to) as PageColumns
  }
  const rows = making(() => native.joinTables(path, seen.slots, seen.leaves, from, to))
  if (typeof rows !== 'number') {
    seen.evidence.host = 'pagemap'
    if (rows.impossibleSlots > 0) seen.evidence.torn = true
    if (rows.passedOver)
      seen.evidence.missing.push('pages of zeros in mappings of more than 4 GiB: finding them needs Linux 6.7 (PAGEMAP_SCAN), or a smaller range')
    if (rows.framesHidden) seen.evidence.missing.push('HPAs of the host page tables are hidden: frame numbers need CAP_SYS_ADMIN (run with sudo)')
    return rows
  }
  const exhausted = exhaustion(`reading ${path}/pagemap`, rows, { pid })
  if (exhausted) throw exhausted
  const errno = errnoName(rows)
  if (errno === 'ENOENT' || errno === 'ESRCH') throw new KvmError('closed', `process ${pid} ended meanwhile`, { pid, errno })
  seen.evidence.missing.push(`the host page tables were not read: ${path}/pagemap: ${errno}; run as root or as the process's user`)
  return native.joinTables(null, seen.slots, seen.leaves, from, to) as PageColumns
}

/** Reads with the second stage of a mirror, until nothing changed in it while the host's tables were read. */
function lookAtMirror(subject: Subject, own: Memslots, read: () => MirrorReading, from: number, to: number): Look & { rows: PageColumns } {
  for (let round = 1; ; round++) {
    const { leaves, changes, lost, missing } = read()
    const seen: Look = {
      slots: ownSlots(own),
      leaves: leaves(),
      vm: null,
      evidence: evidence({ source: 'memslots', secondStage: 'events', lost, attempts: round, missing })
    }
    const rows = join(subject, seen, from, to)
    seen.evidence.invalidations = read().changes - changes
    if (seen.evidence.invalidations === 0 || round === mostRounds) return { ...seen, rows }
  }
}

const generationOf = (vm: ReadVm) => vm.generations.slice(vm.generations.length / 2).join()

/**
 * Reads all three tables until nothing was taken back between reading the second and the third.
 * @internal
 */
export function lookAtAll(subject: Subject, from: number, to: number): Look & { rows: PageColumns } {
  if (subject.mirror && subject.own) return lookAtMirror(subject, subject.own, subject.mirror, from, to)
  for (let round = 1; ; round++) {
    const seen = look(subject, true)
    const rows = join(subject, seen, from, to)
    if (!seen.vm) return { ...seen, rows }
    const after = look({ ...subject, kvm: seen.vm.kvm }, false).vm
    // The first reading was allowed and this one was refused, so nothing tells what happened meanwhile.
    if (!after) return { ...seen, rows, evidence: { ...seen.evidence, torn: true } }
    const invalidations = after.invalidationsAfter - seen.vm.invalidationsBefore
    const moved = generationOf(after) !== generationOf(seen.vm)
    if ((invalidations === 0 && !moved) || round === mostRounds) {
      const attempts = seen.evidence.attempts + round - 1
      return { ...seen, rows, evidence: { ...seen.evidence, invalidations, attempts, torn: seen.evidence.torn || moved } }
    }
  }
}

/** The GPAs to read: `size` bytes from `gpa` on. The default is everything. */
export interface TableRange {
  gpa?: Gpa
  size?: number
}

const gpaEnd = 2 ** 52

/** @internal */
export function readTables(subject: Subject, range: TableRange = {}): Tables {
  const { gpa = 0, size = gpaEnd } = checkOptions('range', range, ['gpa', 'size'])
  checkAddress('gpa', gpa)
  checkInteger('size', size, 0, gpaEnd)
  const { rows, slots, leaves, evidence: how } = lookAtAll(subject, gpa, Math.min(gpa + size, gpaEnd))
  const { framesHidden: _, impossibleSlots: __, passedOver: ___, scanned, ...columns } = rows
  const tables = { ...columns, slots: slotList(slots, subject.pid), leaves, format: spteFormat(), hugeKnown: scanned, evidence: how }
  // The property is not enumerable, so that copies are plain data.
  return Object.defineProperty(tables, inspect.custom, { value: () => showTables(tables) })
}

/** Returns what console.log() shows for columns that have a row for each page. */
function showTables({ gpa, slots, leaves, format, evidence: { source, host, secondStage, torn } }: Tables): string {
  return shown('Tables', {
    rows: gpa.length,
    slots: slots.length,
    leaves: leaves.gpa.length,
    format,
    source,
    host: host ?? 'not read',
    secondStage: secondStage ?? 'not read',
    torn
  })
}

/** @internal Checks that a caller gives back what tables() returned, as far as it is used. */
export function checkTables<T extends Partial<Tables>>(argument: string, table: T, parts: readonly (keyof T & keyof typeof isPart)[]): T {
  const fits = (part: keyof T & keyof typeof isPart) =>
    isPart[part](table[part]) && (!isView(table[part]) || lengthOf(table[part]) === lengthOf(table.gpa))
  if (typeof table !== 'object' || table === null || !parts.every(fits)) throw argumentError(argument, table, 'what tables() returned')
  return table
}
const isObject = (value: unknown) => typeof value === 'object' && value !== null
/** How to recognize the parts of {@link Tables} that functions take back. */
const isPart = {
  gpa: isFloat64Array,
  hpa: isFloat64Array,
  secondHpa: isFloat64Array,
  spte: isBigUint64Array,
  slot: isUint32Array,
  host: isUint16Array,
  level: isUint8Array,
  kind: isUint8Array,
  slots: (value: unknown) => Array.isArray(value) && value.every(isObject),
  evidence: isObject
}
const { isView } = ArrayBuffer
const lengthOf = (column: unknown) => (column as ArrayLike<unknown> | undefined)?.length

/** @internal Returns the address space of a row, or -1 if the row's slot is not in the table. */
export const addressSpaceOf = ({ slots, slot }: Pick<Tables, 'slots' | 'slot'>, row: number): number => slots[slot[row] as number]?.addressSpace ?? -1

/** Returns the row of a GPA, or -1. */
export function rowOf(table: Tables, wanted: Gpa, addressSpace = 0): number {
  const { gpa } = checkTables('table', table, ['gpa', 'slot'])
  if (!Array.isArray(table.slots)) throw argumentError('table', table, 'what tables() returned')
  checkAddress('gpa', wanted)
  checkInteger('addressSpace', addressSpace)
  const page = wanted - (wanted % 4096)
  let low = 0
  for (let high = gpa.length; low < high; ) {
    const middle = (low + high) >> 1
    const space = addressSpaceOf(table, middle)
    if (space < addressSpace || (space === addressSpace && (gpa[middle] as number) < page)) low = middle + 1
    else high = middle
  }
  return gpa[low] === page && addressSpaceOf(table, low) === addressSpace ? low : -1
}
