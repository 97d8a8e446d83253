/** An entry of the second stage, decoded (arch/x86/kvm/mmu/spte.h; Intel SDM volume 3, 29.3.2; AMD APM volume 2, 15.25). */

/** Which of the formats a host's entries have: EPT's own, or that of ordinary page tables. */
export type SpteFormat = 'ept' | 'npt' | 'shadow'

/** What one entry says. */
export interface Spte {
  /** KVM's own mark, bit 11: not so for MMIO entries, which make the processor fault on purpose. */
  present: boolean
  read: boolean
  write: boolean
  execute: boolean
  accessed: boolean
  dirty: boolean
  /** Maps 2 MiB or 1 GiB by itself. */
  huge: boolean
  /** The host may write the page, so that a guest write may be let through. */
  hostWritable: boolean
  /** KVM may make the entry writable without a walk. */
  mmuWritable: boolean
  /** Where it points: a page, or the next table. */
  hpa: number
}

const addressMask = 0x000f_ffff_ffff_f000n
const bit = (value: number, index: number) => (value & (1 << index)) !== 0

/**
 * @param level 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB, 4 and 5 above
 * @example
 * decodeSpte('ept', 0x6000000032a3b77n, 1).hpa.toString(16)   // '32a3000'
 */
export function decodeSpte(format: SpteFormat, spte: bigint, level: number): Spte {
  const low = Number(spte & 0xfffn)
  const high = Number(spte >> 52n)
  const ept = format === 'ept'
  return {
    present: bit(low, 11),
    read: bit(low, 0),
    write: bit(low, 1),
    execute: ept ? bit(low, 2) : bit(low, 0) && !bit(high, 11),
    accessed: bit(low, ept ? 8 : 5),
    dirty: bit(low, ept ? 9 : 6),
    huge: level > 1 && bit(low, 7),
    hostWritable: ept ? bit(high, 57 - 52) : bit(low, 9),
    mmuWritable: ept ? bit(high, 58 - 52) : bit(low, 10),
    hpa: Number(spte & addressMask)
  }
}

/** `rwx`, with a dash for each right that is missing. */
export const accessText = ({ read, write, execute }: Pick<Spte, 'read' | 'write' | 'execute'>) => `${read ? 'r' : '-'}${write ? 'w' : '-'}${execute ? 'x' : '-'}`
