/** How far guest-physical addresses reach on this host. */

import { readFileSync } from 'node:fs'
import { openingOr } from '../abi/exhausted.js'
import type { CpuidEntry } from '../x86/cpuid.js'

type Read = (path: string) => string
/** Where this process can open no file nobody knows, and it throws `limit`. */
const readText: Read = (path) => openingOr('', `reading ${path}`, () => readFileSync(path, 'utf8'))

const widest = 52
const sizesLeaf = 0x8000_0008

/** Whether KVM uses the processor's own second stage here, EPT or NPT. */
const isTwoDimensional = (read: Read): boolean =>
  ['kvm_intel/parameters/ept', 'kvm_amd/parameters/npt'].some((parameter) => /^[Y1]/.test(read(`/sys/module/${parameter}`)))

/**
 * The first GPA that no memslot may reach, by kvm_mmu_max_gfn(): with EPT or NPT what the processor's physical addresses have, 2^MAXPHYADDR;
 * with shadow paging 2^52, whatever they have.
 * @param cpuid KVM_GET_SUPPORTED_CPUID, whose leaf 0x8000_0008 has MAXPHYADDR as the processor says it. Without it /proc/cpuinfo is asked, which
 *   takes off the bits that memory encryption uses
 */
export function guestPhysicalLimit(cpuid?: Iterable<CpuidEntry>, read: Read = readText): number {
  if (!isTwoDimensional(read)) return 2 ** widest
  const leaf = cpuid && [...cpuid].find((entry) => entry.function === sizesLeaf)
  const shown = /^address sizes\s*:\s*(\d+) bits physical/m.exec(read('/proc/cpuinfo'))?.[1]
  const bits = leaf ? leaf.eax & 0xff : Number(shown ?? widest)
  return 2 ** Math.min(bits, widest)
}
