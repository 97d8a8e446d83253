/** Checks what KVM can do here: run guests, translate by EPT or NPT, and each capability that the library uses. */
import { release } from 'node:os'
import type { CapabilityName } from '../../abi/generated/capabilities.js'
import { KVM_X86_QUIRK_SLOT_ZAP_ALL } from '../../abi/generated/constants.js'
import type { Host } from '../host.js'
import { byRoot, type Finding, found, hasSysfs, itsAdvice, lacking, type Situation, whatHappened } from './finding.js'

export async function checkGuest({ probes }: Situation): Promise<Finding | null> {
  const refusal = await probes?.runGuest()
  if (refusal === undefined) return null
  if (refusal === null) return found('guests', 'a VM was made, and its guest ran')
  if (refusal.message.startsWith('opening /dev/kvm')) return lacking('guests', whatHappened(refusal), { advice: 'see /dev/kvm above' })
  const busy = refusal.errno === 'EBUSY' ? 'another hypervisor (VirtualBox, VMware) uses the processor: end its VMs, or unload its modules' : null
  return lacking('guests', whatHappened(refusal), { advice: busy ?? itsAdvice(refusal) })
}

/** Checks whether /sys is mounted. Without it nobody sees what the kernel has loaded, although it is loaded. */
export function checkSysfs(): Finding {
  const name = '/sys'
  if (hasSysfs()) return found(name, 'shows what the kernel has loaded')
  return lacking(name, 'not mounted: what the kernel has loaded can neither be seen nor be read by BPF', byRoot('mount -t sysfs sysfs /sys'))
}

/** For each module, the parameter that turns its second stage off. */
const parameters: Record<string, string> = { kvm_intel: 'ept', kvm_amd: 'npt' }

export function checkSecondStage({ host: { mmu, module, tdpMmu } }: Situation): Finding {
  const name = 'second stage'
  const detail = `${mmu} (${module ?? 'no kvm module'}${tdpMmu ? ', TDP MMU' : ''})`
  if (mmu === 'ept' || mmu === 'npt') return found(name, detail)
  const parameter = module === null ? undefined : parameters[module]
  if (parameter)
    return lacking(
      name,
      `${detail}: the module was loaded with ${parameter}=0, or the processor lacks it`,
      byRoot(`modprobe -r ${module} && modprobe ${module} ${parameter}=1`, 'every VM of this host must end first')
    )
  if (!hasSysfs()) return lacking(name, 'cannot be seen without /sys', { advice: 'see /sys above' })
  if (mmu === 'unknown') return lacking(name, detail, { advice: 'see /dev/kvm above' })
  return lacking(name, `${detail}: this module has no EPT or NPT, as it uses neither VT-x nor SVM`, {
    advice: 'a host with VT-x or SVM, or an emulated one: node-kvm doctor --lane ept'
  })
}

/** What each capability needs besides a kernel of that version (Documentation/virt/kvm/api.rst). */
const wanted: Partial<Record<CapabilityName, { since: [major: number, minor: number]; tdp?: true; option?: string }>> = {
  SYNC_MMU: { since: [2, 6] },
  IMMEDIATE_EXIT: { since: [4, 12] },
  READONLY_MEM: { since: [3, 7] },
  SYNC_REGS: { since: [4, 17] },
  BINARY_STATS_FD: { since: [5, 14] },
  MANUAL_DIRTY_LOG_PROTECT2: { since: [5, 2] },
  DIRTY_LOG_RING: { since: [5, 11] },
  IRQCHIP: { since: [2, 6], option: 'CONFIG_KVM_IOAPIC' },
  IRQFD: { since: [2, 6] },
  IOEVENTFD: { since: [2, 6] },
  COALESCED_PIO: { since: [5, 0] },
  MEMORY_FAULT_INFO: { since: [6, 8] },
  GUEST_MEMFD: { since: [6, 8], option: 'CONFIG_KVM_GUEST_MEMFD' },
  PRE_FAULT_MEMORY: { since: [6, 11], tdp: true }
}

function isOlderThan([major, minor]: readonly [number, number]): boolean {
  const [hereMajor = 0, hereMinor = 0] = release().split('.').map(Number)
  return hereMajor < major || (hereMajor === major && hereMinor < minor)
}

function whyMissing(name: CapabilityName, { mmu }: Host): { why: string; advice: string } {
  const { since, tdp, option } = wanted[name] as NonNullable<(typeof wanted)[CapabilityName]>
  if (isOlderThan(since)) return { why: `${name} came with Linux ${since.join('.')}`, advice: `Linux ${since.join('.')} has ${name}` }
  if (tdp && mmu === 'unknown') return { why: `${name} needs EPT or NPT`, advice: `see second stage for whether this host has one of them` }
  if (tdp && mmu !== 'ept' && mmu !== 'npt')
    return {
      why: `${name} needs EPT or NPT, and the second stage here is ${mmu}`,
      advice: `no other kernel helps for ${name}: see second stage`
    }
  return option
    ? { why: `${name} is not in this kernel`, advice: `${name} needs a kernel with ${option}` }
    : { why: `${name} is not in this module`, advice: `${name} is in Linux's own kvm_intel and kvm_amd` }
}

export function checkCapabilities({ host, capabilities: values }: Situation): Finding[] | null {
  if (!values) return null
  const missing = (Object.keys(wanted) as CapabilityName[]).filter((name) => values[name] === 0).map((name) => whyMissing(name, host))
  return [
    found('memslots', `${values.NR_MEMSLOTS} a VM`),
    missing.length === 0
      ? found('capabilities', 'all that the library uses')
      : lacking('capabilities', missing.map(({ why }) => why).join('; '), { advice: missing.map(({ advice }) => advice).join('; ') }),
    checkZapQuirk(values)
  ]
}

function checkZapQuirk({ DISABLE_QUIRKS2 }: Record<CapabilityName, number>): Finding {
  const name = 'slot zap quirk'
  if (DISABLE_QUIRKS2 & KVM_X86_QUIRK_SLOT_ZAP_ALL) return found(name, 'can be turned off (KVM_X86_QUIRK_SLOT_ZAP_ALL)')
  return lacking(name, 'moving or deleting a slot drops the entries of every slot', { advice: 'Linux 6.12 and later can turn it off' })
}
