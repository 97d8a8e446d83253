/** What this host can show, and for each thing missing the one command or permission that grants it. */
import { accessSync, constants, existsSync } from 'node:fs'
import { KvmError } from '../abi/errors.js'
import { describeHost, type Host, readOptional } from '../abi/host.js'
import { type CapabilityName, capabilities } from '../kvm/capabilities.js'
import { Kvm } from '../kvm/kvm.js'
import { Mapping } from '../memory/mapping.js'
import { Tracefs } from '../trace/tracefs.js'
import { readPagemap } from '../translation/pagemap.js'

/** One thing looked at. */
export interface Finding {
  name: string
  ok: boolean
  detail: string
  /** What to do about it. */
  remedy?: string
}

/** What {@link diagnose} found. */
export interface Diagnosis {
  host: Host
  /** Values of KVM_CHECK_EXTENSION; null when /dev/kvm cannot be opened. */
  capabilities: Record<CapabilityName, number> | null
  findings: Finding[]
  /** Whether VMs can be made. Findings beyond that limit what can be observed. */
  ok: boolean
}

const quirkSlotZapAll = 1 << 7

function find(name: string, ok: boolean, detail: string, remedy?: string): Finding {
  return ok || !remedy ? { name, ok, detail } : { name, ok, detail, remedy }
}

function checkDevice(): { finding: Finding; values: Diagnosis['capabilities'] } {
  try {
    using kvm = Kvm.open()
    using _vm = kvm.createVm()
    const values = Object.fromEntries(Object.entries(capabilities).map(([name, number]) => [name, kvm.checkExtension(number)])) as Record<
      CapabilityName,
      number
    >
    return { finding: find('/dev/kvm', true, 'opens, and makes a VM'), values }
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    const [detail, ...remedy] = error.message.split('; ')
    return { finding: find('/dev/kvm', false, detail as string, remedy.join('; ') || 'see dmesg | grep kvm'), values: null }
  }
}

function checkMmu({ mmu, module, tdpMmu }: Host): Finding {
  const detail = `${mmu} (${module ?? 'no kvm module'}${tdpMmu ? ', TDP MMU' : ''})`
  const remedy = 'load kvm_intel with ept=1 or kvm_amd with npt=1; without VT-x or SVM, shadow paging is what there is'
  return find('second stage', mmu === 'ept' || mmu === 'npt', detail, remedy)
}

function checkCapabilities(values: Diagnosis['capabilities']): Finding[] {
  if (!values) return []
  const wanted: CapabilityName[] = [
    'SYNC_MMU',
    'IMMEDIATE_EXIT',
    'READONLY_MEM',
    'SYNC_REGS',
    'BINARY_STATS_FD',
    'MANUAL_DIRTY_LOG_PROTECT2',
    'DIRTY_LOG_RING',
    'IRQCHIP',
    'IRQFD',
    'IOEVENTFD',
    'COALESCED_PIO',
    'MEMORY_FAULT_INFO',
    'GUEST_MEMFD',
    'PRE_FAULT_MEMORY'
  ]
  const missing = wanted.filter((name) => values[name] === 0)
  const zapAll = (values.DISABLE_QUIRKS2 & quirkSlotZapAll) !== 0
  return [
    find('memslots', values.NR_MEMSLOTS > 0, `${values.NR_MEMSLOTS} a VM`),
    find(
      'capabilities',
      missing.length === 0,
      missing.length === 0 ? 'all that the library uses' : `without ${missing.join(', ')}`,
      'a newer kernel may have them (KVM_CAP_ in <linux/kvm.h>)'
    ),
    find(
      'slot zap quirk',
      zapAll,
      zapAll ? 'can be turned off (KVM_X86_QUIRK_SLOT_ZAP_ALL)' : 'a slot moved or deleted drops the entries of every slot',
      'kernels from 6.12 let KVM_CAP_DISABLE_QUIRKS2 turn it off'
    )
  ]
}

/** Effective capability bits of this process. */
function hasCapability(bit: number): boolean {
  const effective = /\nCapEff:\s*([0-9a-f]+)/.exec(readOptional('/proc/self/status') ?? '')?.[1] ?? '0'
  return ((BigInt(`0x${effective}`) >> BigInt(bit)) & 1n) === 1n
}
const sysAdmin = 21
const perfmon = 38
const bpf = 39

function checkTracefs(): Finding {
  const places = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing'].filter((place) => existsSync(`${place}/events`))
  if (places.length === 0) return checkPrivateTracefs()
  try {
    accessSync(`${places[0]}/events/kvm`, constants.R_OK)
    return find('tracefs', true, `${places[0]}, with kvm's events`)
  } catch {
    return find(
      'tracefs',
      false,
      `${places[0]}, but kvm's events cannot be read`,
      'run as root, or sudo mount -o remount,gid=$(id -g),mode=750 /sys/kernel/tracing'
    )
  }
}

// A trace mounts it for itself then, in no namespace.
function checkPrivateTracefs(): Finding {
  try {
    using tracefs = new Tracefs()
    const there = tracefs.read('kvm/kvm_userspace_exit', 'id') !== null
    return find('tracefs', there, `not mounted; a trace mounts it for itself${there ? '' : ", but kvm's events are not there"}`, 'load kvm')
  } catch {
    return find('tracefs', false, 'not mounted, or not readable', 'sudo mount -t tracefs tracefs /sys/kernel/tracing')
  }
}

function checkPerf(): Finding {
  const level = Number(readOptional('/proc/sys/kernel/perf_event_paranoid') ?? 4)
  const may = level < 0 || hasCapability(perfmon) || hasCapability(sysAdmin)
  return find(
    'tracepoints by perf',
    may,
    `perf_event_paranoid ${level}`,
    'run with CAP_PERFMON (sudo setcap cap_perfmon+ep $(which node)), or sudo sysctl kernel.perf_event_paranoid=-1'
  )
}

function checkBpf(): Finding {
  if (!existsSync('/sys/kernel/btf/vmlinux')) return find('BPF', false, 'the kernel has no BTF', 'a kernel built with CONFIG_DEBUG_INFO_BTF')
  const may = hasCapability(sysAdmin) || (hasCapability(bpf) && hasCapability(perfmon))
  return find(
    'BPF',
    may,
    may ? 'BTF there, CAP_BPF held' : 'no CAP_BPF',
    'run with CAP_BPF and CAP_PERFMON: sudo setcap cap_bpf,cap_perfmon+ep $(which node)'
  )
}

function checkPagemap(): Finding {
  using page = Mapping.anonymous(4096, { populate: true })
  page.write(0, new Uint8Array([1]))
  const visible = readPagemap(page.address)[0]?.hpa !== undefined
  return find('pagemap frames', visible, visible ? 'HPAs visible' : 'HPAs hidden', 'run with CAP_SYS_ADMIN (sudo)')
}

function checkUserfaultfd(): Finding {
  const remedy = 'run with CAP_SYS_PTRACE (sudo), or sudo sysctl vm.unprivileged_userfaultfd=1'
  try {
    using page = Mapping.anonymous(4096)
    page.onMissing({ content: new Uint8Array() }).close()
    return find('userfaultfd', true, 'guest memory can be paged on demand')
  } catch (error) {
    return find('userfaultfd', false, (error as Error).message.split(';')[0] as string, remedy)
  }
}

function checkLockdown(): Finding {
  const text = readOptional('/sys/kernel/security/lockdown')
  const level = /\[(\w+)\]/.exec(text ?? '')?.[1] ?? 'not reported'
  return find(
    'lockdown',
    level !== 'confidentiality',
    level,
    'boot with lockdown=integrity or none: confidentiality refuses BPF reads of kernel memory'
  )
}

/**
 * Looks at the host. Does not throw for what is missing: it says it.
 * @example
 * const { ok, findings } = diagnose()
 */
export function diagnose(): Diagnosis {
  const host = describeHost()
  const { finding, values } = checkDevice()
  const findings = [
    finding,
    checkMmu(host),
    ...checkCapabilities(values),
    checkTracefs(),
    checkPerf(),
    checkBpf(),
    checkPagemap(),
    checkUserfaultfd(),
    checkLockdown()
  ]
  return { host, capabilities: values, findings, ok: finding.ok }
}
