/** Finds out what this host can show. For each thing that is missing it names the one command or permission that grants it. */
import { KvmError } from '../abi/errors.js'
import type { CapabilityName } from '../abi/generated/capabilities.js'
import { checkAddon } from './doctor/addon.js'
import { checkDevice } from './doctor/device.js'
import type { Check, Finding, Situation } from './doctor/finding.js'
import { checkAddressSpace, checkFileSize, checkLockedMemory, checkOpenFiles, checkThreads } from './doctor/limits.js'
import { checkCapabilities, checkGuest, checkSecondStage, checkSysfs } from './doctor/machine.js'
import { checkHugetlb, checkUserfaultfd } from './doctor/memory.js'
import { checkBpf, checkFrames, checkLockdown, checkOwnProc, checkPerf, checkPidNamespace, checkTracefs } from './doctor/observing.js'
import { checkBinutils, checkLab } from './doctor/tools.js'
import { describeHost, type Host } from './host.js'

export type { Finding } from './doctor/finding.js'

/** The result of {@link diagnose}. */
export interface Diagnosis {
  host: Host
  /** The values of KVM_CHECK_EXTENSION, or null if /dev/kvm cannot be opened. */
  capabilities: Record<CapabilityName, number> | null
  findings: Finding[]
  /** Whether VMs can be made and run. The other findings limit only what can be observed. */
  ok: boolean
}

/** The checks, in an order in which each one comes after those that it depends on. */
const checks: readonly Check[] = [
  checkAddon,
  checkDevice,
  checkGuest,
  checkSysfs,
  checkSecondStage,
  checkCapabilities,
  checkOwnProc,
  checkPidNamespace,
  checkTracefs,
  checkPerf,
  checkBpf,
  checkFrames,
  checkLockdown,
  checkUserfaultfd,
  checkHugetlb,
  checkOpenFiles,
  checkThreads,
  checkAddressSpace,
  checkFileSize,
  checkLockedMemory,
  checkBinutils,
  checkLab
]

/** Loads the probes only when they are needed: the doctor works without the add-on, whose absence is its first finding. */
async function loadProbes(): Promise<Pick<Situation, 'probes' | 'unloaded'>> {
  try {
    return { probes: await import('./doctor/probes.js'), unloaded: null }
  } catch (error) {
    if (error instanceof KvmError) return { probes: null, unloaded: error }
    throw error
  }
}

/**
 * Examines the host, and tries what is harmless to try. It does not throw for what is missing, but reports it.
 * @example
 * const { ok, findings } = await diagnose()
 */
export async function diagnose(): Promise<Diagnosis> {
  const { probes, unloaded } = await loadProbes()
  const situation: Situation = { host: describeHost(), probes, unloaded, capabilities: probes?.checkExtensions() ?? null }
  const findings: Finding[] = []
  // One check after the other: what one of them tries must not use up a limit that another one measures.
  for (const check of checks) findings.push(...[(await check(situation)) ?? []].flat())
  const { host, capabilities } = situation
  return { host, capabilities, findings, ok: findings.some(({ name, ok }) => name === 'guests' && ok) }
}
