/** Processor modes for a new vCPU: the state that firmware and a boot loader would have left. */
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOneOf, checkOptions, GiB, MiB, pageSize } from '../../abi/arguments.js'
import type { Some } from '../../abi/struct.js'
import { type CpuidEntry, Segment, SpecialRegisters } from '../../abi/structures.js'
import { longModeCpuid } from '../../x86/cpuid.js'
import type { GuestMemory } from '../vm/guest-memory.js'
import type { VcpuRegisters } from './registers.js'

/** Real mode: 16 bits, addresses up to 1 MiB. */
export interface RealModeOptions {
  /** Where to begin; with `cs` 0, a guest-physical address below 64 KiB. */
  ip: number
  /** Code segment selector; its base is 16 times that. */
  cs?: number
  sp?: number
}
/** 32-bit flat mode without paging. */
export interface ProtectedModeOptions {
  /** Where to begin, flat. */
  ip: number
  sp?: number
}
/** 64-bit mode, with page tables, GDT and TSS written into guest memory. */
export interface LongModeOptions {
  /** Where to begin; linear and physical addresses are equal. */
  ip: number
  sp?: number
  /** Privilege: 3 may use ports too (IOPL 3), and has interrupts on. */
  ring?: 0 | 3
  /** GPA of {@link longModeTablesSize} bytes for GDT, TSS and page tables, on a page border; it must have a memslot. */
  tables: number
  /** Bytes mapped one to one from 0, in 2 MiB pages; whole GiB, 4 GiB if absent. */
  identityBytes?: number
}
/** The options of each mode, by its name. */
export interface ModeOptions {
  real: RealModeOptions
  protected: ProtectedModeOptions
  long: LongModeOptions
}
/** A processor mode that {@link Vcpu.enter} prepares. */
export type Mode = keyof ModeOptions

/** The part of a vCPU, and of its VM's memory, that entering a mode writes. */
export interface ModeTarget {
  /** Ends what the last run left half done, and drops what waits to be delivered. */
  settle(): void
  /** Sets CPUID where nobody has. */
  prepareCpuid(entries: readonly CpuidEntry[]): void
  registers: Pick<VcpuRegisters, 'getSpecial' | 'setSpecial' | 'set'>
  memory: Pick<GuestMemory, 'write'>
}

/** What a mode begins with. */
interface Start {
  special: Some<typeof SpecialRegisters.fields>
  ip: number
  sp: number
  flags?: bigint
  /** What memory must hold. */
  tables?: { gpa: Gpa; bytes: Uint8Array }
}

// Intel SDM volume 3, 2.5 and 2.2.1.
const cr0 = { pe: 1n << 0n, mp: 1n << 1n, et: 1n << 4n, ne: 1n << 5n, wp: 1n << 16n, pg: 1n << 31n }
const cr4 = { pae: 1n << 5n, osfxsr: 1n << 9n, osxmmexcpt: 1n << 10n }
const efer = { lme: 1n << 8n, lma: 1n << 10n }
const reservedFlag = 2n
// As user code runs: IOPL 3 for ports, and interrupts on, so that a guest that never leaves can be taken out on every host (docs/lab.md).
const userFlags = (3n << 12n) | (1n << 9n)

// Segment types with the accessed bit set, as VT-x demands of a valid guest (SDM volume 3, 27.3.1.2).
const codeType = 11
const dataType = 3
const busyTss = 11
const ldtType = 2
const selectors = { kernelCode: 0x08, kernelData: 0x10, userData: 0x1b, userCode: 0x23, task: 0x28 }

// GDT, TSS and I/O bitmap come first. The bitmap has a bit for each of 65,536 ports, 0 for one that CPL 3 may use, and a byte of ones
// behind them (SDM volume 1, 19.5.2). Hardware does not look at it with IOPL 3, but software that takes its place does.
const gdtLimit = 0x37
const tssOffset = 0x100
const tssSize = 104
const bitmapOffsetField = 102
const bitmapSize = 65_536 / 8 + 1
const tssLimit = tssSize + bitmapSize - 1
const firstTable = Math.ceil((tssOffset + tssLimit + 1) / pageSize)

/** Bytes that long mode's tables take. */
export function longModeTablesSize(identityBytes = 4 * GiB): number {
  return (firstTable + 2 + checkIdentity(identityBytes) / GiB) * pageSize
}

function checkIdentity(bytes: number): number {
  checkInteger('identityBytes', bytes, GiB, 512 * GiB)
  if (bytes % GiB !== 0) throw argumentError('identityBytes', bytes, 'whole GiB')
  return bytes
}

const starts: { [M in Mode]: (options: ModeOptions[M]) => Start } = { real: startReal, protected: startProtected, long: startLong }

/** Puts `target` into a mode, whatever it was in. {@link Vcpu.enter} calls this. */
export function enterMode<M extends Mode>(target: ModeTarget, mode: M, options: ModeOptions[M]): void {
  checkOneOf('mode', mode, Object.keys(starts) as Mode[])
  const { special: wanted, ip, sp, flags = 0n, tables } = starts[mode](options)
  // What may be refused comes first: a vCPU that runs, its CPUID, memory that is not there.
  const special = target.registers.getSpecial()
  target.prepareCpuid(longModeCpuid())
  if (tables) target.memory.write(tables.gpa, tables.bytes)
  target.settle()
  SpecialRegisters.assign(special, 'registers', { ...reset, ...wanted })
  target.registers.setSpecial(special)
  target.registers.set({ rip: BigInt(ip), rsp: BigInt(sp), rflags: reservedFlag | flags })
}

/** As after power-on (SDM volume 3, table 10-1), but with caches on; the APIC's base is kept. */
const reset: Some<typeof SpecialRegisters.fields> = {
  ldt: new Segment({ limit: 0xffff, type: ldtType, present: 1 }),
  tr: new Segment({ limit: 0xffff, type: busyTss, present: 1 }),
  gdt: { base: 0n, limit: 0xffff },
  idt: { base: 0n, limit: 0xffff },
  cr0: cr0.et,
  cr2: 0n,
  cr3: 0n,
  cr4: 0n,
  cr8: 0n,
  efer: 0n,
  interrupt_bitmap: [0n, 0n, 0n, 0n]
}

const flatSegment = (values: Some<typeof Segment.fields>) => new Segment({ limit: 0xffff_ffff, present: 1, s: 1, g: 1, ...values })
const dataSegments = (segment: Segment) => ({ ds: segment, es: segment, fs: segment, gs: segment, ss: segment })

function startReal(options: RealModeOptions): Start {
  const { ip, cs = 0, sp = 0 } = checkOptions('options', options, ['ip', 'cs', 'sp'])
  checkInteger('ip', ip, 0, 0xffff)
  checkInteger('cs', cs, 0, 0xffff)
  checkInteger('sp', sp, 0, 0xffff)
  const special = {
    cs: new Segment({ base: BigInt(cs * 16), limit: 0xffff, selector: cs, type: codeType, present: 1, s: 1 }),
    ...dataSegments(new Segment({ limit: 0xffff, type: dataType, present: 1, s: 1 }))
  }
  return { special, ip, sp }
}

function startProtected(options: ProtectedModeOptions): Start {
  const { ip, sp = 0 } = checkOptions('options', options, ['ip', 'sp'])
  checkInteger('ip', ip, 0, 0xffff_ffff)
  checkInteger('sp', sp, 0, 0xffff_ffff)
  const special = {
    cs: flatSegment({ selector: selectors.kernelCode, type: codeType, db: 1 }),
    ...dataSegments(flatSegment({ selector: selectors.kernelData, type: dataType, db: 1 })),
    cr0: cr0.pe | cr0.et | cr0.ne
  }
  return { special, ip, sp }
}

function startLong(options: LongModeOptions): Start {
  const { ip, sp = 0, ring = 0, tables, identityBytes = 4 * GiB } = checkOptions('options', options, ['ip', 'sp', 'ring', 'tables', 'identityBytes'])
  checkAddress('ip', ip)
  checkAddress('sp', sp)
  checkAddress('tables', tables, pageSize)
  checkIdentity(identityBytes)
  if (ring !== 0 && ring !== 3) throw argumentError('ring', ring, '0 or 3')
  const user = ring === 3
  const special = {
    cs: flatSegment({ selector: user ? selectors.userCode : selectors.kernelCode, type: codeType, dpl: ring, l: 1 }),
    ...dataSegments(flatSegment({ selector: user ? selectors.userData : selectors.kernelData, type: dataType, dpl: ring, db: 1 })),
    tr: new Segment({ base: BigInt(tables + tssOffset), limit: tssLimit, selector: selectors.task, type: busyTss, present: 1 }),
    gdt: { base: BigInt(tables), limit: gdtLimit },
    cr3: BigInt(tables + firstTable * pageSize),
    cr4: cr4.pae | cr4.osfxsr | cr4.osxmmexcpt,
    cr0: cr0.pe | cr0.mp | cr0.et | cr0.ne | cr0.wp | cr0.pg,
    efer: efer.lme | efer.lma
  }
  const written = { gpa: tables, bytes: buildTables(tables, identityBytes, ring) }
  return { special, ip, sp, flags: user ? userFlags : 0n, tables: written }
}

/** GDT, TSS and I/O bitmap, then PML4, PDPT and one page directory a GiB (SDM volume 3, 4.5). */
function buildTables(gpa: Gpa, identityBytes: number, ring: 0 | 3): Uint8Array {
  const words = new BigUint64Array(longModeTablesSize(identityBytes) / 8)
  const bytes = new Uint8Array(words.buffer)
  words.set([0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_f300_0000_ffffn, 0x00af_fb00_0000_ffffn, ...taskDescriptor(gpa + tssOffset)])
  bytes[tssOffset + bitmapOffsetField] = tssSize
  bytes[tssOffset + tssLimit] = 0xff
  const entryFlags = 3n | (ring === 3 ? 4n : 0n)
  const largePage = 1n << 7n
  const table = (number: number) => ((firstTable + number) * pageSize) / 8
  const point = (number: number) => BigInt(gpa + (firstTable + number) * pageSize) | entryFlags
  words[table(0)] = point(1)
  for (let gib = 0; gib < identityBytes / GiB; gib++) {
    words[table(1) + gib] = point(2 + gib)
    for (let entry = 0; entry < 512; entry++) words[table(2 + gib) + entry] = BigInt(gib * GiB + entry * 2 * MiB) | entryFlags | largePage
  }
  return bytes
}

/** A busy 64-bit TSS descriptor, 16 bytes (SDM volume 3, 8.2.3). */
function taskDescriptor(base: number): [bigint, bigint] {
  const address = BigInt(base)
  const low = BigInt(tssLimit) | ((address & 0xff_ffffn) << 16n) | (0x8bn << 40n) | (((address >> 24n) & 0xffn) << 56n)
  return [low, address >> 32n]
}
