/** What host this is: read from files that need no privilege, each of which may be absent. */
import { existsSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { openingOr } from '../abi/exhausted.js'
import type { SpteFormat } from '../x86/spte.js'

/** How KVM translates GPA -> HPA here. */
export type Mmu = 'ept' | 'npt' | 'shadow' | 'unknown'

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

/**
 * A file's text without its last newline, or null.
 * @throws KvmError `limit` when this process can open no file
 */
export function readOptional(path: string): string | null {
  return openingOr(null, `reading ${path}`, () => readFileSync(path, 'utf8').trim())
}

const isOn = (value: string | null) => value === 'Y' || value === '1'
const vendors: Record<string, string> = { GenuineIntel: 'Intel', AuthenticAMD: 'AMD' }

function findMmu(): Pick<Host, 'module' | 'mmu'> {
  for (const [module, parameter, mmu] of [
    ['kvm_intel', 'ept', 'ept'],
    ['kvm_amd', 'npt', 'npt']
  ] as const)
    if (existsSync(`/sys/module/${module}`))
      return { module, mmu: isOn(readOptional(`/sys/module/${module}/parameters/${parameter}`)) ? mmu : 'shadow' }
  if (existsSync('/sys/module/kvm_pvm')) return { module: 'kvm_pvm', mmu: 'shadow' }
  return { module: existsSync('/sys/module/kvm') ? 'kvm' : null, mmu: 'unknown' }
}

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
