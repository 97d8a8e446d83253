/** Processor modes for a new vCPU: the state that firmware and a boot loader would have left. */
import { argumentError, checkAddress, checkInteger, checkOneOf, checkOptions, GiB, MiB, pageSize } from '../abi/arguments.js'
import { CpuidEntry, Segment, type SpecialRegisters } from '../abi/structures.js'

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
  getSpecialRegisters(): SpecialRegisters
  setSpecialRegisters(values: SpecialRegisters): void
  setRegisters(values: { rip: bigint; rsp: bigint; rflags: bigint }): void
  /** Sets CPUID unless the caller has set it before. */
  defaultCpuid(entries: CpuidEntry[]): void
  memory: { write(gpa: number, bytes: Uint8Array): void }
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
const selectors = { kernelCode: 0x08, kernelData: 0x10, userData: 0x1b, userCode: 0x23, task: 0x28 }

const gdtLimit = 0x37
const tssOffset = 0x100
const tssSize = 104

/** Bytes that long mode's tables take. */
export function longModeTablesSize(identityBytes = 4 * GiB): number {
  return (3 + identityBytes / GiB) * pageSize
}

/** Puts `target` into a mode. {@link Vcpu.enter} calls this. */
export function enterMode<M extends Mode>(target: ModeTarget, mode: M, options: ModeOptions[M]): void {
  checkOneOf('mode', mode, ['real', 'protected', 'long'])
  if (mode === 'real') enterReal(target, options as RealModeOptions)
  else if (mode === 'protected') enterProtected(target, options as ProtectedModeOptions)
  else enterLong(target, options as LongModeOptions)
}

function flatSegment(values: Partial<Segment>): Segment {
  return new Segment({ limit: 0xffff_ffff, present: 1, s: 1, g: 1, ...values })
}

function setData(registers: SpecialRegisters, segment: Segment): void {
  for (const name of ['ds', 'es', 'fs', 'gs', 'ss'] as const) registers[name] = segment
}

function begin(target: ModeTarget, ip: number, sp: number, flags = 0n): void {
  target.setRegisters({ rip: BigInt(ip), rsp: BigInt(sp), rflags: reservedFlag | flags })
}

function enterReal(target: ModeTarget, options: RealModeOptions): void {
  const { ip, cs = 0, sp = 0 } = checkOptions('options', options, ['ip', 'cs', 'sp'])
  checkInteger('ip', ip, 0, 0xffff)
  checkInteger('cs', cs, 0, 0xffff)
  checkInteger('sp', sp, 0, 0xffff)
  const registers = target.getSpecialRegisters()
  registers.cs = new Segment({ base: BigInt(cs * 16), limit: 0xffff, selector: cs, type: codeType, present: 1, s: 1 })
  setData(registers, new Segment({ limit: 0xffff, type: dataType, present: 1, s: 1 }))
  target.setSpecialRegisters(registers)
  begin(target, ip, sp)
}

function enterProtected(target: ModeTarget, options: ProtectedModeOptions): void {
  const { ip, sp = 0 } = checkOptions('options', options, ['ip', 'sp'])
  checkInteger('ip', ip, 0, 0xffff_ffff)
  checkInteger('sp', sp, 0, 0xffff_ffff)
  const registers = target.getSpecialRegisters()
  registers.cs = flatSegment({ selector: selectors.kernelCode, type: codeType, db: 1 })
  setData(registers, flatSegment({ selector: selectors.kernelData, type: dataType, db: 1 }))
  registers.cr0 = cr0.pe | cr0.et | cr0.ne
  target.setSpecialRegisters(registers)
  begin(target, ip, sp)
}

function enterLong(target: ModeTarget, options: LongModeOptions): void {
  const { ip, sp = 0, ring = 0, tables, identityBytes = 4 * GiB } = checkOptions('options', options, ['ip', 'sp', 'ring', 'tables', 'identityBytes'])
  checkAddress('ip', ip)
  checkAddress('sp', sp)
  checkAddress('tables', tables, pageSize)
  checkInteger('identityBytes', identityBytes, GiB, 512 * GiB)
  if (identityBytes % GiB !== 0) throw argumentError('identityBytes', identityBytes, 'whole GiB')
  if (ring !== 0 && ring !== 3) throw argumentError('ring', ring, '0 or 3')
  target.defaultCpuid(longModeCpuid())
  target.memory.write(tables, buildTables(tables, identityBytes, ring))
  const registers = target.getSpecialRegisters()
  const user = ring === 3
  registers.cs = flatSegment({ selector: user ? selectors.userCode : selectors.kernelCode, type: codeType, dpl: ring, l: 1 })
  setData(registers, flatSegment({ selector: user ? selectors.userData : selectors.kernelData, type: dataType, dpl: ring, db: 1 }))
  registers.tr = new Segment({ base: BigInt(tables + tssOffset), limit: tssSize - 1, selector: selectors.task, type: busyTss, present: 1 })
  const { gdt } = registers
  gdt.base = BigInt(tables)
  gdt.limit = gdtLimit
  registers.cr3 = BigInt(tables + pageSize)
  registers.cr4 = cr4.pae | cr4.osfxsr | cr4.osxmmexcpt
  registers.cr0 = cr0.pe | cr0.mp | cr0.et | cr0.ne | cr0.wp | cr0.pg
  registers.efer = efer.lme | efer.lma
  target.setSpecialRegisters(registers)
  begin(target, ip, sp, user ? userFlags : 0n)
}

/**
 * A processor that has long mode, NX and SYSCALL, and no more to say: KVM takes EFER.LME only from a guest whose CPUID has long mode. Older
 * kernels did not look at CPUID before it was set.
 */
function longModeCpuid(): CpuidEntry[] {
  const longMode = (1 << 29) | (1 << 20) | (1 << 11)
  return [{ function: 0, eax: 1 }, { function: 1 }, { function: 0x8000_0000, eax: 0x8000_0001 }, { function: 0x8000_0001, edx: longMode }].map(
    (values) => new CpuidEntry(values)
  )
}

/** GDT and TSS in the first page, then PML4, PDPT and one page directory a GiB (SDM volume 3, 4.5). */
function buildTables(gpa: number, identityBytes: number, ring: 0 | 3): Uint8Array {
  const words = new BigUint64Array(longModeTablesSize(identityBytes) / 8)
  words.set([0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_f300_0000_ffffn, 0x00af_fb00_0000_ffffn, ...taskDescriptor(gpa + tssOffset)])
  const entryFlags = 3n | (ring === 3 ? 4n : 0n)
  const largePage = 1n << 7n
  const table = (number: number) => (number * pageSize) / 8
  const point = (number: number) => BigInt(gpa + number * pageSize) | entryFlags
  words[table(1)] = point(2)
  for (let gib = 0; gib < identityBytes / GiB; gib++) {
    words[table(2) + gib] = point(3 + gib)
    for (let entry = 0; entry < 512; entry++) words[table(3 + gib) + entry] = BigInt(gib * GiB + entry * 2 * MiB) | entryFlags | largePage
  }
  return new Uint8Array(words.buffer)
}

/** A busy 64-bit TSS descriptor, 16 bytes (SDM volume 3, 8.2.3). */
function taskDescriptor(base: number): [bigint, bigint] {
  const address = BigInt(base)
  const low = BigInt(tssSize - 1) | ((address & 0xff_ffffn) << 16n) | (0x8bn << 40n) | (((address >> 24n) & 0xffn) << 56n)
  return [low, address >> 32n]
}
