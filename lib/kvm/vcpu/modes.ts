/** Processor modes for a new vCPU: the state that firmware and a boot loader would leave. */
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOneOf, checkOptions, GiB, pageSize } from '../../abi/arguments.js'
import {
  EFER_LMA,
  EFER_LME,
  X86_CR0_ET,
  X86_CR0_MP,
  X86_CR0_NE,
  X86_CR0_PE,
  X86_CR0_PG,
  X86_CR0_WP,
  X86_CR4_OSFXSR,
  X86_CR4_OSXMMEXCPT,
  X86_CR4_PAE,
  X86_EFLAGS_FIXED,
  X86_EFLAGS_IF,
  X86_EFLAGS_IOPL
} from '../../abi/generated/constants.js'
import type { Some } from '../../abi/struct.js'
import { type CpuidEntry, longModeCpuid } from '../../x86/cpuid.js'
import { identityTableCount, putIdentityTables } from '../../x86/paging.js'
import { Segment, SpecialRegisters } from '../../x86/registers.js'
import {
  busyTaskState,
  codeType,
  dataSegments,
  dataType,
  descriptorTablesSize,
  flatSegment,
  globalTableLimit,
  localTableType,
  putDescriptorTables,
  selectors,
  taskStateLimit,
  taskStateOffset
} from '../../x86/segments.js'
import type { GuestMemory } from '../vm/guest-memory.js'
import type { VcpuRegisters } from './registers.js'

/** Real mode, which has 16 bits and addresses up to 1 MiB. */
export interface RealModeOptions {
  /** Where to begin. If `cs` is 0, it is a guest-physical address below 64 KiB. */
  ip: number
  /** The code segment selector. The base of the segment is 16 times that. */
  cs?: number
  sp?: number
}
/** Flat 32-bit mode without paging. */
export interface ProtectedModeOptions {
  /** Where to begin, as a flat address. */
  ip: number
  sp?: number
}
/** 64-bit mode. Page tables, GDT and TSS are written into guest memory. */
export interface LongModeOptions {
  /** Where to begin. Linear and physical addresses are equal. */
  ip: number
  sp?: number
  /** The privilege level. At level 3 the guest may also use ports (IOPL 3), and interrupts are on. */
  ring?: 0 | 3
  /** The GPA, on a page border, of {@link longModeTablesSize} bytes for GDT, TSS and page tables. A memslot must cover them. */
  tables: number
  /** How many bytes from 0 on are mapped one to one, in 2 MiB pages: whole GiB, by default 4 GiB. */
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

/** The parts of a vCPU, and of its VM's memory, that entering a mode writes. */
export interface ModeTarget {
  /** Finishes what the last run left half done, and drops the events that wait to be delivered. */
  settle(): void
  /** Sets CPUID if nobody has set it. */
  prepareCpuid(entries: readonly CpuidEntry[]): void
  registers: Pick<VcpuRegisters, 'getSpecial' | 'setSpecial' | 'set'>
  memory: Pick<GuestMemory, 'write'>
}

/** The state in which a mode begins. */
interface Start {
  special: Some<typeof SpecialRegisters.fields>
  ip: number
  sp: number
  flags?: bigint
  /** The tables that memory must hold. */
  tables?: { gpa: Gpa; bytes: Uint8Array }
}

const bits = (...flags: number[]): bigint => flags.reduce((all, flag) => all | BigInt(flag), 0n)
// User code runs with IOPL 3 for ports, and with interrupts on, so that a guest that never leaves can be interrupted on every host (docs/lab.md).
const userFlags = bits(X86_EFLAGS_IOPL, X86_EFLAGS_IF)

// GDT, TSS and I/O bitmap come first.
const firstTable = Math.ceil(descriptorTablesSize / pageSize)

/** Returns the number of bytes that the tables of long mode take. */
export function longModeTablesSize(identityBytes = 4 * GiB): number {
  return (firstTable + identityTableCount(checkIdentity(identityBytes))) * pageSize
}

function checkIdentity(bytes: number): number {
  checkInteger('identityBytes', bytes, GiB, 512 * GiB)
  if (bytes % GiB !== 0) throw argumentError('identityBytes', bytes, 'whole GiB')
  return bytes
}

const starts: { [M in Mode]: (options: ModeOptions[M]) => Start } = { real: startReal, protected: startProtected, long: startLong }

/** Puts `target` into a mode, whatever mode it was in. {@link Vcpu.enter} calls this. */
export function enterMode<M extends Mode>(target: ModeTarget, mode: M, options: ModeOptions[M]): void {
  checkOneOf('mode', mode, Object.keys(starts) as Mode[])
  const { special: wanted, ip, sp, flags = 0n, tables } = starts[mode](options)
  // Steps that may be refused come first: the vCPU may run, its CPUID may lack long mode, and memory may be missing.
  const special = target.registers.getSpecial()
  target.prepareCpuid(longModeCpuid())
  if (tables) target.memory.write(tables.gpa, tables.bytes)
  target.settle()
  SpecialRegisters.assign(special, 'registers', { ...reset, ...wanted })
  target.registers.setSpecial(special)
  target.registers.set({ rip: BigInt(ip), rsp: BigInt(sp), rflags: bits(X86_EFLAGS_FIXED) | flags })
}

/** The state after power-on (SDM volume 3, table 10-1), but with caches on. The base of the APIC is kept. */
const reset: Some<typeof SpecialRegisters.fields> = {
  ldt: new Segment({ limit: 0xffff, type: localTableType, present: 1 }),
  tr: new Segment({ limit: 0xffff, type: busyTaskState, present: 1 }),
  gdt: { base: 0n, limit: 0xffff },
  idt: { base: 0n, limit: 0xffff },
  cr0: bits(X86_CR0_ET),
  cr2: 0n,
  cr3: 0n,
  cr4: 0n,
  cr8: 0n,
  efer: 0n,
  interrupt_bitmap: [0n, 0n, 0n, 0n]
}

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
    cr0: bits(X86_CR0_PE, X86_CR0_ET, X86_CR0_NE)
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
    tr: new Segment({ base: BigInt(tables + taskStateOffset), limit: taskStateLimit, selector: selectors.task, type: busyTaskState, present: 1 }),
    gdt: { base: BigInt(tables), limit: globalTableLimit },
    cr3: BigInt(tables + firstTable * pageSize),
    cr4: bits(X86_CR4_PAE, X86_CR4_OSFXSR, X86_CR4_OSXMMEXCPT),
    cr0: bits(X86_CR0_PE, X86_CR0_MP, X86_CR0_ET, X86_CR0_NE, X86_CR0_WP, X86_CR0_PG),
    efer: bits(EFER_LME, EFER_LMA)
  }
  const written = { gpa: tables, bytes: buildTables(tables, identityBytes, ring) }
  return { special, ip, sp, flags: user ? userFlags : 0n, tables: written }
}

/** Builds GDT, TSS and I/O bitmap, and after them the page tables. */
function buildTables(gpa: Gpa, identityBytes: number, ring: 0 | 3): Uint8Array {
  const bytes = new Uint8Array(longModeTablesSize(identityBytes))
  putDescriptorTables(bytes, gpa)
  const tables = firstTable * pageSize
  putIdentityTables(bytes.subarray(tables), gpa + tables, identityBytes, ring === 3)
  return bytes
}
