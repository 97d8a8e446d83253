/** An entry of the second stage, field by field (arch/x86/kvm/mmu/spte.h; Intel SDM 29.3.3, AMD APM 15.25). */

/** How the entries of this host are laid out: Intel's EPT, or the processor's ordinary page tables, which NPT and shadow paging use. */
export type SpteFormat = 'ept' | 'x86'

/** What an entry says. */
export interface DecodedSpte {
  /** As it lies in the table. */
  raw: bigint
  present: boolean
  readable: boolean
  writable: boolean
  executable: boolean
  /** `rwx`, with `-` for what is not allowed. */
  access: string
  /** Read through it, and written through it, since KVM last looked; null where the entry does not keep them. */
  accessed: boolean | null
  dirty: boolean | null
  /** One entry for 2 MiB or 1 GiB. */
  huge: boolean
  /** The host's page tables allow writing: KVM may make the entry writable again without asking them. */
  hostWritable: boolean
  /** KVM write-protected it for its own sake (dirty logging, shadowed page tables) and may undo that at a fault. */
  mmuWritable: boolean
  /** EPT memory type, or null in the other format. */
  memoryType: 'UC' | 'WC' | 'WT' | 'WP' | 'WB' | null
}

const memoryTypes: Record<number, NonNullable<DecodedSpte['memoryType']>> = { 0: 'UC', 1: 'WC', 4: 'WT', 5: 'WP', 6: 'WB' }
// SPTE_TDP_AD_MASK: 1 says that this entry keeps no accessed and dirty bits.
const adShift = 52n
const adDisabled = 1n

/**
 * Reads an entry.
 * @param level 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB
 * @example
 * decodeSpte(0x600000032a3b77n, 1, 'ept').access   // 'rwx'
 */
export function decodeSpte(raw: bigint, level: number, format: SpteFormat): DecodedSpte {
  const bit = (number: number) => ((raw >> BigInt(number)) & 1n) === 1n
  const keepsAd = ((raw >> adShift) & 3n) !== adDisabled
  const ept = format === 'ept'
  const present = bit(11)
  const readable = present && bit(0)
  const writable = present && bit(1)
  const executable = present && (ept ? bit(2) : !bit(63))
  return {
    raw, present, readable, writable, executable,
    access: `${readable ? 'r' : '-'}${writable ? 'w' : '-'}${executable ? 'x' : '-'}`,
    accessed: present && keepsAd ? bit(ept ? 8 : 5) : null,
    dirty: present && keepsAd ? bit(ept ? 9 : 6) : null,
    huge: present && level > 1,
    hostWritable: present && bit(ept ? 57 : 9),
    mmuWritable: present && bit(ept ? 58 : 10),
    memoryType: present && ept ? (memoryTypes[Number((raw >> 3n) & 7n)] ?? null) : null
  }
}

/** Bytes that an entry of this level maps. */
export const levelSize = (level: number): number => 4096 * 512 ** (level - 1)
