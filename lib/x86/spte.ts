/** Decodes an entry of the second stage (arch/x86/kvm/mmu/spte.h; Intel SDM volume 3, 29.3.2; AMD APM volume 2, 15.25). */
import type { Hpa } from '../abi/addresses.js'
import { argumentError, checkBits, checkInteger, checkOneOf } from '../abi/arguments.js'

/** The layout of a host's entries: Intel's EPT format, or the processor's ordinary page-table format, which NPT and shadow paging use. */
export type SpteFormat = 'ept' | 'x86'

/** The meaning of one entry. */
export interface Spte {
  /** KVM's own mark, bit 11. MMIO entries lack it: they make the processor fault on purpose. */
  present: boolean
  read: boolean
  write: boolean
  execute: boolean
  /** The processor read (`accessed`) or wrote (`dirty`) through the entry since KVM last looked; null if the entry does not record it. */
  accessed: boolean | null
  dirty: boolean | null
  /** The entry maps 2 MiB or 1 GiB by itself. */
  huge: boolean
  /** The host may write the page, so KVM may let a guest write through. */
  hostWritable: boolean
  /** KVM write-protected the entry for its own sake (dirty logging, shadowed page tables) and may undo that without a walk. */
  mmuWritable: boolean
  /** How the processor may cache the page. It is null in the x86 format, and if the entry points to the next table. */
  memoryType: 'UC' | 'WC' | 'WT' | 'WP' | 'WB' | null
  /** Where the entry points: to a page, or to the next table. */
  hpa: Hpa
}

const formats = ['ept', 'x86'] as const
const addressMask = 0x000f_ffff_ffff_f000n
const memoryTypes: readonly Spte['memoryType'][] = ['UC', 'WC', null, null, 'WT', 'WP', 'WB', null]
// SPTE_TDP_AD_MASK, bits 52 and 53. The value 1 says that this entry keeps no accessed and dirty bits.
const adMask = 3
const adDisabled = 1
const bit = (value: number, index: number) => (value & (1 << index)) !== 0

/**
 * Decodes one entry.
 * @param level 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB, 4 and 5 for the tables above
 * @example
 * decodeSpte('ept', 0x6000000032a3b77n, 1).hpa.toString(16)   // '32a3000'
 */
export function decodeSpte(format: SpteFormat, spte: bigint, level: number): Spte {
  checkOneOf('format', format, formats)
  checkBits('spte', spte)
  checkInteger('level', level, 1, 5)
  const low = Number(spte & 0xfffn)
  const high = Number(spte >> 52n)
  const ept = format === 'ept'
  const present = bit(low, 11)
  const huge = level > 1 && bit(low, 7)
  const keepsAd = present && (high & adMask) !== adDisabled
  return {
    present,
    read: bit(low, 0),
    write: bit(low, 1),
    execute: ept ? bit(low, 2) : bit(low, 0) && !bit(high, 11),
    accessed: keepsAd ? bit(low, ept ? 8 : 5) : null,
    dirty: keepsAd ? bit(low, ept ? 9 : 6) : null,
    huge,
    hostWritable: ept ? bit(high, 57 - 52) : bit(low, 9),
    mmuWritable: ept ? bit(high, 58 - 52) : bit(low, 10),
    memoryType: present && ept && (level === 1 || huge) ? (memoryTypes[(low >> 3) & 7] ?? null) : null,
    hpa: Number(spte & addressMask)
  }
}

/** Formats rights as `rwx`, with a dash for each missing one. */
export function accessText(entry: Pick<Spte, 'read' | 'write' | 'execute'>): string {
  if (typeof entry !== 'object' || entry === null) throw argumentError('entry', entry, 'what decodeSpte() returned')
  return `${entry.read ? 'r' : '-'}${entry.write ? 'w' : '-'}${entry.execute ? 'x' : '-'}`
}

/** How many bytes an entry of this level maps. */
export const levelSize = (level: number): number => 4096 * 512 ** (level - 1)
