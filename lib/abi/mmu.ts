/** How KVM translates GPA to HPA on this host, according to its modules. */
import { existsSync } from 'node:fs'
import { readOptional } from './procfs.js'

/** How KVM translates GPA to HPA here. */
export type Mmu = 'ept' | 'npt' | 'shadow' | 'unknown'

/** Whether a module's parameter is on: its file holds Y or 1. */
export const isOn = (value: string | null) => value === 'Y' || value === '1'

const processors = [
  ['kvm_intel', 'ept'],
  ['kvm_amd', 'npt']
] as const

/**
 * Finds the module that serves /dev/kvm, and how it translates.
 * @param read returns the text of a file, or null if it cannot be read
 */
export function findMmu(read: (path: string) => string | null = readOptional): { module: string | null; mmu: Mmu } {
  for (const [module, mmu] of processors) {
    const value = read(`/sys/module/${module}/parameters/${mmu}`)
    if (value !== null) return { module, mmu: isOn(value) ? mmu : 'shadow' }
  }
  if (existsSync('/sys/module/kvm_pvm')) return { module: 'kvm_pvm', mmu: 'shadow' }
  return { module: existsSync('/sys/module/kvm') ? 'kvm' : null, mmu: 'unknown' }
}
