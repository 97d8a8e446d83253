/** How far guest-physical addresses reach on this host. */

import { findMmu } from '../abi/mmu.js'
import { readOptional } from '../abi/procfs.js'
import type { CpuidEntry } from '../x86/cpuid.js'

const widest = 52
const sizesLeaf = 0x8000_0008

/**
 * The first GPA that no memslot may reach, by kvm_mmu_max_gfn(): with EPT or NPT what the processor's physical addresses have, 2^MAXPHYADDR;
 * with shadow paging 2^52, whatever they have.
 * @param cpuid KVM_GET_SUPPORTED_CPUID, whose leaf 0x8000_0008 has MAXPHYADDR as the processor says it. Without it /proc/cpuinfo is asked, which
 *   takes off the bits that memory encryption uses
 */
export function guestPhysicalLimit(cpuid?: Iterable<CpuidEntry>, read: (path: string) => string | null = readOptional): number {
  const { mmu } = findMmu(read)
  if (mmu !== 'ept' && mmu !== 'npt') return 2 ** widest
  const leaf = cpuid && [...cpuid].find((entry) => entry.function === sizesLeaf)
  const shown = /^address sizes\s*:\s*(\d+) bits physical/m.exec(read('/proc/cpuinfo') ?? '')?.[1]
  const bits = leaf ? leaf.eax & 0xff : Number(shown ?? widest)
  return 2 ** Math.min(bits, widest)
}
