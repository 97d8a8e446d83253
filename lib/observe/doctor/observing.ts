/** Checks what this process may observe: tracepoints, the second stage by BPF, and frames. If it may not, the check finds the obstacle. */

import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { pageSize } from '../../abi/arguments.js'
import { exhaustion, KvmError } from '../../abi/errors.js'
import { isFiltered, readOptional } from '../../abi/procfs.js'
import { quoted } from '../../abi/text.js'
import {
  containerKind,
  gainsNothing,
  hasCapability,
  inOwnNamespace,
  type LinuxCapability,
  mayGainCapability,
  priceOf,
  shellWith
} from '../privileges.js'
import { readPagemap } from '../tables/pagemap.js'
import { missingOnHost, readingHost } from '../tables/refusal.js'
import { byRoot, exhaustedAdvice, type Finding, found, hasSysfs, lacking, type Situation, whatHappened } from './finding.js'
import type { Refusal } from './probes.js'

/** How this process gets capabilities in the kernel's first user namespace. Each place that can withhold them has its own way. */
export function gaining(...capabilities: LinuxCapability[]): Pick<Finding, 'remedy' | 'advice' | 'price'> {
  const flags = capabilities.map((name) => `--cap-add ${name.toUpperCase()}`).join(' ')
  if (inOwnNamespace('user')) return { advice: 'capabilities of a user namespace do not count here: run it outside of the namespace, as root' }
  if (gainsNothing()) return { advice: 'this session cannot gain privileges (no_new_privs): run it in another one, as root' }
  if (capabilities.every((name) => mayGainCapability(name))) return { remedy: shellWith(...capabilities), price: priceOf(...capabilities) }
  return {
    advice:
      containerKind() === null
        ? `the program that started this session lowered its bounding set of capabilities (systemd: CapabilityBoundingSet=); ${capabilities.map((name) => `CAP_${name.toUpperCase()}`).join(' and ')} must be in it`
        : `start the container with ${flags}, as in: docker run ${flags} ...`
  }
}

/** For a process that has the capability and still gets EPERM: a seccomp filter refuses the call, as Docker's default filter does. */
const unfiltered = (calls: string): Pick<Finding, 'advice'> => ({
  advice:
    containerKind() === null
      ? `a seccomp filter refuses ${calls}: start this outside of the sandbox that set the filter (systemd: SystemCallFilter=)`
      : `a seccomp filter refuses ${calls}: docker run --security-opt seccomp=FILE, with a FILE that allows the call, or seccomp=unconfined`
})

/** Checks /proc/self. A process that is not dumpable owns nothing in it (proc(5), prctl(2) PR_SET_DUMPABLE). */
export function checkOwnProc(): Finding {
  const name = '/proc/self'
  if (!existsSync('/proc/self/status'))
    return lacking(name, 'there is no /proc, so the checks below that need it know nothing', byRoot('mount -t proc proc /proc'))
  try {
    readFileSync('/proc/self/auxv')
    return found(name, "this process's own files can be read")
  } catch (error) {
    return notDumpable(name, (error as NodeJS.ErrnoException).code ?? 'EIO')
  }
}

/** The kernel has two reasons: a program file that the user may not read, or one that gains capabilities (begin_new_exec() and commit_creds()). */
function notDumpable(name: string, errno: string): Finding {
  const node = quoted(process.execPath)
  const what = `${errno}: this process is not dumpable, and its /proc/self belongs to root: pagemap and descriptors cannot be read`
  if (!isReadable(process.execPath))
    return lacking(
      name,
      `${what}; the node binary may be run, but not read, by this user`,
      byRoot(`chmod a+r ${node}`, 'everybody can then read the file')
    )
  return lacking(
    name,
    `${what}; node has capabilities from its file (setcap)`,
    byRoot(
      `setcap -r ${node}`,
      'node then has no capabilities of its own; the shells that are named below give them to programs of your choice, not to every script'
    )
  )
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

const places = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']

export async function checkTracefs({ probes }: Situation): Promise<Finding | null> {
  const name = 'tracefs'
  const mounts = readOptional('/proc/self/mounts') ?? ''
  const mounted = places.find((place) => new RegExp(`^\\S+ ${place} tracefs `, 'm').test(mounts))
  const refusal = probes ? await probes.readTracepoint() : readFormat()
  if (refusal === undefined) return null
  if (refusal === null)
    return found(
      name,
      mounted === undefined ? 'not mounted; a trace mounts it for its own use' : `${mounted}: the formats of kvm's events can be read`
    )
  const exhausted = exhaustedAdvice(refusal)
  if (exhausted) return lacking(name, whatHappened(refusal), exhausted)
  const group = process.getegid?.() ?? 0
  const outside = 'tracefs belongs to the host: run node-kvm outside of the user namespace'
  const price = `group ${group} can then see which events the kernel has, and can read and change what others trace through tracefs`
  if (refusal.errno === 'ENOENT') return lacking(name, 'it is mounted, but has no events of KVM: kvm is not loaded', { advice: 'see /dev/kvm above' })
  const detail = mounted && refusal.errno === 'EPERM' ? `${mounted} is mounted, and this user may not enter it` : whatHappened(refusal)
  if (inOwnNamespace('user')) return lacking(name, detail, { advice: outside })
  const command =
    mounted === undefined ? `mount -t tracefs -o gid=${group},mode=750 tracefs ${places[0]}` : `mount -o remount,gid=${group},mode=750 ${mounted}`
  return lacking(name, detail, byRoot(command, price))
}

/** Reads a format without the add-on if tracefs is mounted. Returns undefined if only the add-on could mount it. */
function readFormat(): Refusal | undefined {
  for (const place of places)
    try {
      readFileSync(`${place}/events/kvm/kvm_userspace_exit/format`)
      return null
    } catch (error) {
      const { code = 'EIO' } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') continue
      const asked = `reading ${place}/events/kvm`
      return exhaustion(asked, code) ?? { code: 'permission', errno: code, message: `${asked}: ${code}` }
    }
  return undefined
}

const paranoid = () => readOptional('/proc/sys/kernel/perf_event_paranoid') ?? 'unknown'

export async function checkPerf({ probes }: Situation): Promise<Finding | null> {
  const name = 'tracepoints by perf'
  const refusal = await probes?.openTrace()
  if (!probes || refusal === undefined) return null
  if (refusal === null) return found(name, `they open (perf_event_paranoid ${paranoid()})`)
  const detail = `${whatHappened(refusal)}; perf_event_paranoid is ${paranoid()}`
  if (refusal.errno === 'EMFILE') return lacking(name, detail, { advice: 'see open files below: each event takes one for each CPU' })
  if (await probes.readTracepoint()) return lacking(name, detail, { advice: 'see tracefs above first' })
  if (refusal.code === 'limit')
    return lacking(name, 'rings of 4 MiB for each CPU are more than this process may lock', {
      advice: 'see locked memory below; or give trace() a smaller ringSize'
    })
  if (!hasCapability('perfmon') && !hasCapability('sys_admin')) return lacking(name, detail, gaining('perfmon'))
  return lacking(name, detail, isFiltered() ? unfiltered('perf_event_open') : { advice: 'the kernel log may say why: sudo dmesg | tail' })
}

export async function checkBpf({ probes }: Situation): Promise<Finding | null> {
  const name = 'BPF'
  const host = readingHost()
  const known = missingOnHost(host)
  if (!host.kvmLoaded && !hasSysfs()) return lacking(name, 'the facts about the kernel that it needs are in /sys', { advice: 'see /sys above' })
  if (known === null && probes === null) return null
  const refusal = known === null && probes ? await probes.loadReader() : null
  const exhausted = refusal && exhaustedAdvice(refusal)
  if (exhausted) return lacking(name, whatHappened(refusal), exhausted)
  const why = known?.why ?? refusal?.message
  if (!why) return found(name, 'the program that reads memslots and page tables was loaded')
  const withPrivileges = { ...host, userNamespace: false, capabilities: { sysAdmin: true, bpf: true, perfmon: true } }
  if (known && missingOnHost(withPrivileges) === null) return lacking(name, why, gaining('perfmon', 'bpf'))
  if (isFiltered() && /EPERM|EACCES/.test(why)) return lacking(name, why, unfiltered('bpf'))
  return lacking(name, why, { advice: known?.remedy ?? 'node-kvm does not know this kernel: tell the maintainers its version' })
}

const looked = 16

/**
 * Returns an address where this process has pages: the upper end of the stack, where the kernel puts arguments and environment. Null without /proc.
 */
function residentAddress(): number | null {
  const stack = /^[0-9a-f]+-([0-9a-f]+) .*\[stack\]$/m.exec(readOptional('/proc/self/maps') ?? '')
  return stack ? Number.parseInt(stack[1] as string, 16) - looked * pageSize : null
}

export function checkFrames(): Finding {
  const name = 'pagemap frames'
  const address = residentAddress()
  if (address === null) return lacking(name, '/proc/self/maps cannot be read', { advice: 'see /proc/self above' })
  try {
    if (readPagemap(address, looked).some(({ hpa }) => hpa !== undefined)) return found(name, 'pagemap shows HPAs')
    if (hasCapability('sys_admin'))
      return lacking(name, 'pagemap hides HPAs, although CAP_SYS_ADMIN is held', { advice: 'use another kernel: this one is no plain Linux' })
    return lacking(name, 'pagemap hides HPAs from processes without CAP_SYS_ADMIN', gaining('sys_admin'))
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    return lacking(name, whatHappened(error), exhaustedAdvice(error) ?? { advice: 'see /proc/self above' })
  }
}

export function checkPidNamespace(): Finding {
  const name = 'processes'
  if (!inOwnNamespace('pid')) return found(name, 'all processes of the host can be named')
  return lacking(name, 'this is a PID namespace: the VMs of processes outside of it have no process here', {
    advice: containerKind() === null ? 'run it outside of that namespace' : 'start the container with --pid=host'
  })
}

export function checkLockdown(): Finding {
  const level = /\[(\w+)\]/.exec(readOptional('/sys/kernel/security/lockdown') ?? '')?.[1] ?? 'this kernel reports none'
  return level === 'confidentiality'
    ? lacking('lockdown', 'confidentiality, which refuses BPF reads of kernel memory, and tracefs', {
        advice: 'boot with lockdown=integrity, or none'
      })
    : found('lockdown', level)
}
