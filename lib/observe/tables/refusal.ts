/** Explains why VMs cannot be read from outside here: which permission, kernel option or field is missing. */
import { existsSync } from 'node:fs'
import { errnoName } from '../../abi/errors.js'
import type { TableFailure } from '../../abi/native.js'
import { readOptional } from '../../abi/procfs.js'
import type { Host } from '../host.js'
import { hasCapability, inOwnNamespace, shellWith } from '../privileges.js'

/** The fields in the order of field_bit in native/observe/bpf/layout.h. */
const fields = [
  'kvm.memslots',
  'kvm.mm',
  'kvm.mmu_invalidate_seq',
  'kvm_memslots.generation',
  'kvm_memslots.id_hash',
  'kvm_memslots.node_idx',
  'kvm_memory_slot.id_node',
  'kvm_memory_slot.base_gfn',
  'kvm_memory_slot.npages',
  'kvm_memory_slot.userspace_addr',
  'kvm_memory_slot.flags',
  'kvm_memory_slot.id',
  'kvm_memory_slot.as_id',
  'kvm_arch.active_mmu_pages',
  'kvm_mmu_page.link',
  'kvm_mmu_page.role',
  'kvm_mmu_page.gfn',
  'kvm_mmu_page.spt',
  'kvm_mmu_page.shadowed_translation'
]

/** The properties of the host that decide whether VMs can be read. */
export interface ReadingHost {
  kvmLoaded: boolean
  /** Whether the kernel has BTF, and `moduleBtf` whether the kvm module has it if it is one. */
  btf: boolean
  moduleBtf: boolean
  lockdown: string | null
  capabilities: { sysAdmin: boolean; bpf: boolean; perfmon: boolean }
  /** Whether these capabilities belong to a user namespace, where they give no access to the kernel's memory. */
  userNamespace: boolean
}

export function readingHost(): ReadingHost {
  return {
    kvmLoaded: existsSync('/sys/module/kvm'),
    btf: existsSync('/sys/kernel/btf/vmlinux'),
    moduleBtf: !existsSync('/sys/module/kvm/initstate') || existsSync('/sys/kernel/btf/kvm'),
    lockdown: /\[(\w+)\]/.exec(readOptional('/sys/kernel/security/lockdown') ?? '')?.[1] ?? null,
    capabilities: { sysAdmin: hasCapability('sys_admin'), perfmon: hasCapability('perfmon'), bpf: hasCapability('bpf') },
    userNamespace: inOwnNamespace('user')
  }
}

/** Returns what is missing, as far as it is known without asking the kernel, or null. */
export function missingOnHost({
  kvmLoaded,
  btf,
  moduleBtf,
  lockdown,
  capabilities,
  userNamespace
}: ReadingHost): { why: string; remedy: string } | null {
  if (!kvmLoaded) return { why: 'kvm is not loaded', remedy: 'sudo modprobe kvm_intel or kvm_amd' }
  if (!btf) return { why: 'the kernel has no BTF (/sys/kernel/btf/vmlinux)', remedy: 'a kernel built with CONFIG_DEBUG_INFO_BTF' }
  if (!moduleBtf) return { why: 'the module kvm has no BTF (/sys/kernel/btf/kvm)', remedy: 'a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES' }
  if (lockdown === 'confidentiality')
    return {
      why: 'lockdown is at the level confidentiality, which refuses BPF reads of kernel memory',
      remedy: 'boot with lockdown=integrity or none'
    }
  if (userNamespace)
    return {
      why: 'this process is in a user namespace, and the kernel does not accept the CAP_BPF and CAP_PERFMON of one',
      remedy: 'run outside of it, as root'
    }
  const lacking = [...(capabilities.bpf ? [] : ['CAP_BPF']), ...(capabilities.perfmon ? [] : ['CAP_PERFMON'])]
  if (lacking.length > 0 && !capabilities.sysAdmin)
    return { why: `no ${lacking.join(' and no ')}`, remedy: `run as root, or in a shell that has them: ${shellWith('bpf', 'perfmon')}` }
  return null
}

/** Returns the names of the fields in {@link TableFailure.missingFields}. */
export const missingFieldNames = (bits: number): string[] => fields.filter((_, index) => (bits >> index) & 1)

/** Explains a refusal in one sentence that ends with what to do. */
export function explainRefusal({ step, error, missingFields, log }: TableFailure, host: ReadingHost): string {
  if (step === 'fields' && missingFields !== 0)
    return `this kernel's KVM has no ${missingFieldNames(missingFields).join(', no ')}: node-kvm does not know its tables; tell the maintainers the version of this kernel`
  const known = missingOnHost(host)
  if (known) return `${known.why}; ${known.remedy}`
  const last = log.trim().split('\n').at(-1)
  return `the kernel refused the BPF program at '${step}' with ${errnoName(error)}${last ? ` (${last})` : ''}`
}

/** Returns why a mirror made from events would not be exact here, or null if it is exact. */
export function whyNoMirror({ mmu, tdpMmu }: Pick<Host, 'mmu' | 'tdpMmu'>): string | null {
  if (mmu === 'shadow')
    return 'under shadow paging no event tells that a single entry ended, so a mirror would go on showing entries that are gone; node-kvm lab has machines with EPT and NPT'
  if (!tdpMmu)
    return "KVM's TDP MMU is off (/sys/module/kvm/parameters/tdp_mmu), and KVM reports changes entry by entry only for that MMU; sudo modprobe kvm tdp_mmu=1"
  return null
}
