/** Describes the host from files that need no privilege, each of which may be absent. */
import { release } from 'node:os'
import { findMmu, isOn, type Mmu } from '../abi/mmu.js'
import { readOptional } from '../abi/procfs.js'
import type { SpteFormat } from '../x86/spte.js'

export type { Mmu }

/** The kernel, the processor, and how KVM uses them. */
export interface Host {
  kernel: string
  vendor: string
  /** The module that serves /dev/kvm: `kvm_intel`, `kvm_amd` or another; null if there is none. */
  module: string | null
  mmu: Mmu
  /** Whether KVM uses its TDP MMU, which has tables of its own for two-dimensional paging (the module parameter tdp_mmu). */
  tdpMmu: boolean
}

const vendors: Record<string, string> = { GenuineIntel: 'Intel', AuthenticAMD: 'AMD' }

/**
 * Describes the host's kernel, processor and second stage.
 * @example
 * describeHost().mmu   // 'ept'
 */
export function describeHost(): Host {
  const id = /^vendor_id\s*:\s*(\S+)/m.exec(readOptional('/proc/cpuinfo') ?? '')?.[1] ?? 'unknown'
  const found = findMmu()
  return {
    kernel: release(),
    vendor: vendors[id] ?? id,
    ...found,
    tdpMmu: found.mmu !== 'shadow' && isOn(readOptional('/sys/module/kvm/parameters/tdp_mmu'))
  }
}

/** Returns the layout of the entries of this host's second stage. */
export const spteFormat = (): SpteFormat => (findMmu().mmu === 'ept' ? 'ept' : 'x86')
