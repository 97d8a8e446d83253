/** The end of guest-physical addresses on this host. */

import { findMmu } from '../abi/mmu.js'
import { readOptional } from '../abi/procfs.js'
import type { CpuidEntry } from '../x86/cpuid.js'

const widest = 52
const sizesLeaf = 0x8000_0008

/**
 * Returns the first GPA that no memslot may reach, as kvm_mmu_max_gfn() does. With EPT or NPT it is 2^MAXPHYADDR, the end of the processor's
 * physical addresses; with shadow paging it is 2^52 on every processor.
 * @param cpuid the answer of KVM_GET_SUPPORTED_CPUID, whose leaf 0x8000_0008 has the processor's MAXPHYADDR. Without it, the value comes from
 *   /proc/cpuinfo, which subtracts the bits that memory encryption uses
 */
export function guestPhysicalLimit(cpuid?: Iterable<CpuidEntry>, read: (path: string) => string | null = readOptional): number {
  const { mmu } = findMmu(read)
  if (mmu !== 'ept' && mmu !== 'npt') return 2 ** widest
  const leaf = cpuid && [...cpuid].find((entry) => entry.function === sizesLeaf)
  const shown = /^address sizes\s*:\s*(\d+) bits physical/m.exec(read('/proc/cpuinfo') ?? '')?.[1]
  const bits = leaf ? leaf.eax & 0xff : Number(shown ?? widest)
  return 2 ** Math.min(bits, widest)
}
