/** Explains why tracepoints do not open (perf_event_open(2)). */
import { KiB, pageSize } from '../../abi/arguments.js'
import { errnoName, exhaustion, KvmError } from '../../abi/errors.js'
import { glance, isFiltered, limitOf, numberAt } from '../../abi/procfs.js'
import { hasCapability } from '../privileges.js'

const asked = 'opening tracepoints'
const inKiB = (bytes: number) => `${Math.ceil(bytes / KiB)} KiB`

function processors(): number {
  const ranges = glance('/sys/devices/system/cpu/online').trim().split(',')
  return ranges.reduce((sum, range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return sum + last - first + 1
  }, 0)
}

/** The kernel has one reason (perf_mmap()): beyond perf_event_mlock_kb for each processor, rings count as locked memory of their user. */
function ringsNotLocked(ringSize: number): KvmError {
  const count = processors()
  const free = (numberAt('/proc/sys/kernel/perf_event_mlock_kb') ?? 0) * KiB
  const locked = limitOf('Max locked memory')?.soft ?? 0
  return new KvmError(
    'limit',
    `${asked}: EPERM; the rings, ${inKiB(ringSize + pageSize)} for each of ${count} processors, are more than this user may lock: ${inKiB(free)} for each processor (/proc/sys/kernel/perf_event_mlock_kb) and ${inKiB(locked)} for the process (ulimit -l, RLIMIT_MEMLOCK), which other traces share; use a smaller ringSize, raise one of the two, or run with CAP_IPC_LOCK`,
    { errno: 'EPERM', ringSize }
  )
}

function notPermitted(errno: string): KvmError {
  const paranoid = numberAt('/proc/sys/kernel/perf_event_paranoid')
  const may = paranoid === -1 || hasCapability('perfmon') || hasCapability('sys_admin')
  const isConfidential = glance('/sys/kernel/security/lockdown').includes('[confidentiality]')
  const why = !may
    ? `this process lacks CAP_PERFMON, and /proc/sys/kernel/perf_event_paranoid is ${paranoid ?? 'unknown'}; run it as root, or as node-kvm doctor says`
    : isConfidential
      ? "lockdown is at the level 'confidentiality', which forbids it to everybody; boot with lockdown=integrity, or none"
      : isFiltered()
        ? 'this process has the capability for it, and is under a seccomp filter; if that refuses perf_event_open, start the process outside of the sandbox, or with a filter that allows it'
        : 'this process has the capability for it; a security module may have refused it (see dmesg | tail)'
  return new KvmError('permission', `${asked}: ${errno}; ${why}`, { errno })
}

/** @param result the negative errno that the add-on returned; ENOBUFS means that the rings may not be locked (native/observe/trace_ring.h) */
export function refusal(result: number, ringSize: number): KvmError {
  const errno = errnoName(result)
  if (errno === 'ENOBUFS') return ringsNotLocked(ringSize)
  if (errno === 'EACCES' || errno === 'EPERM') return notPermitted(errno)
  if (errno === 'ENOMEM')
    return new KvmError('memory', `${asked}: ENOMEM; there is no memory for rings of ${inKiB(ringSize)} for each processor; use a smaller ringSize`, {
      errno
    })
  const advice = errno === 'ENOSYS' ? '; this kernel has no perf events (CONFIG_PERF_EVENTS)' : ''
  return (
    exhaustion(`${asked} (each event takes a descriptor for each CPU)`, errno) ??
    new KvmError('unavailable', `${asked}: ${errno}${advice}`, { errno })
  )
}
