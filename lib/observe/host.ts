/** What host this is: read from files that need no privilege, each of which may be absent. */
import { release } from 'node:os'
import { findMmu, isOn, type Mmu } from '../abi/mmu.js'
import { readOptional } from '../abi/procfs.js'
import type { SpteFormat } from '../x86/spte.js'

export type { Mmu }

/** What runs here. */
export interface Host {
  kernel: string
  vendor: string
  /** `kvm_intel`, `kvm_amd`, or what else serves /dev/kvm. */
  module: string | null
  mmu: Mmu
  /** KVM's two-dimensional-paging MMU with its own tables (the module parameter tdp_mmu). */
  tdpMmu: boolean
}

const vendors: Record<string, string> = { GenuineIntel: 'Intel', AuthenticAMD: 'AMD' }

/**
 * The host's kernel, processor and second stage.
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

/** How the entries of this host's second stage are laid out. */
export const spteFormat = (): SpteFormat => (findMmu().mmu === 'ept' ? 'ept' : 'x86')
