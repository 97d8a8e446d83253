/** Checks the limits that this process inherited: open files, threads, address space, locked memory. */

import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { GiB, KiB, MiB } from '../../abi/arguments.js'
import { limitOf, readOptional } from '../../abi/procfs.js'
import { quoted } from '../../abi/text.js'
import { containerKind, hasCapability, inOwnNamespace, isInstalled, mayGainCapability } from '../privileges.js'
import { namesIn } from './files.js'
import { byRoot, type Finding, found, lacking, type Situation } from './finding.js'

/**
 * Raises a limit by prlimit(1), since not every shell's ulimit has every limit. `$$` is the process id of the shell into which the user pastes it.
 */
function raising(option: string, hard: number, enough: number): Pick<Finding, 'remedy' | 'price' | 'advice'> {
  const price = 'for this shell and the programs started from it'
  const value = enough === Infinity ? 'unlimited' : String(enough)
  // Everybody may raise a limit up to the hard limit. Only root may raise it further, unless the session was started without that right.
  if (hard >= enough) return { remedy: `prlimit --pid $$ --${option}=${value}:`, price }
  if (!mayGainCapability('sys_resource') || inOwnNamespace('user'))
    return {
      advice: `the program that started this session limits it: docker run --ulimit ${option}=${enough === Infinity ? -1 : value} ..., or systemd's Limit${option.toUpperCase()}=`
    }
  const command = `prlimit --pid $$ --${option}=${value}:${value}`
  if (process.getuid?.() === 0) return { remedy: command, price }
  return { remedy: isInstalled('sudo') ? `sudo ${command}` : `su -p -s /bin/sh -c "${command}"`, price }
}

/**
 * Checks the descriptors: a trace takes one for each event on each CPU, a VM takes one and one more per vCPU. Node raises its own limit to the hard
 * one.
 */
export function checkOpenFiles(): Finding | null {
  const files = limitOf('Max open files')
  if (!files) return null
  const free = files.soft - namesIn('/proc/self/fd').length
  const enough = 128 + 16 * availableParallelism()
  const detail = `${free} more may be opened; a trace here takes about ${16 * availableParallelism()}`
  return free >= enough ? found('open files', detail) : lacking('open files', detail, raising('nofile', files.hard, 2 * enough))
}

/** Checks the limit of threads, for the user (RLIMIT_NPROC in getrlimit(2)) and for the cgroup (pids.max). */
export function checkThreads(): Finding | null {
  const name = 'threads'
  const needed = 64
  const group = pidsOf(readOptional('/proc/self/cgroup') ?? '')
  if (group && group.most - group.current < needed)
    return lacking(name, `the cgroup ${group.folder} may make ${group.most - group.current} more; each started vCPU and each Worker takes one`, {
      ...byRoot(`echo ${group.current + 4096} > ${quoted(`${group.folder}/pids.max`)}`, 'for every process of that cgroup'),
      ...(containerKind() === null ? {} : { advice: 'or start the container with --pids-limit' })
    })
  const processes = limitOf('Max processes')
  if (!processes) return null
  const uid = process.getuid?.() ?? 0
  const isExempt = (uid === 0 && !inOwnNamespace('user')) || hasCapability('sys_resource') || hasCapability('sys_admin')
  if (isExempt || processes.soft === Infinity) return found(name, 'not limited for this user')
  const used = threadsOf(uid)
  const free = processes.soft - used
  const detail = `this user may make ${Math.max(0, free)} more (${used} of ${processes.soft}); each started vCPU and each Worker takes one`
  return free >= needed ? found(name, detail) : lacking(name, detail, raising('nproc', processes.hard, used + 4096))
}

/**
 * Returns the tightest limit of this process's cgroup, of version 1 or 2, and of the cgroups above it, which count as well; null if there is none.
 */
function pidsOf(groups: string): { folder: string; most: number; current: number } | null {
  const [, first] = /^\d+:pids:(.*)$/m.exec(groups) ?? []
  const root = first === undefined ? '/sys/fs/cgroup' : '/sys/fs/cgroup/pids'
  let tightest: ReturnType<typeof pidsOf> = null
  for (let folder = join(root, first ?? /^0::(.*)$/m.exec(groups)?.[1] ?? ''); folder.startsWith(root); folder = dirname(folder)) {
    const most = readOptional(`${folder}/pids.max`)
    if (most === null || most === 'max') continue
    const one = { folder: folder.replace(/\/$/, ''), most: Number(most), current: Number(readOptional(`${folder}/pids.current`) ?? 0) }
    if (tightest === null || one.most - one.current < tightest.most - tightest.current) tightest = one
  }
  return tightest
}

function threadsOf(uid: number): number {
  const counts = namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      const status = readOptional(`/proc/${pid}/status`) ?? ''
      return new RegExp(`^Uid:\\s+${uid}\\s`, 'm').test(status) ? Number(/^Threads:\s+(\d+)/m.exec(status)?.[1] ?? 0) : 0
    })
  return counts.reduce((sum, count) => sum + count, 0)
}

/** Checks the address space, which also holds guest memory. V8 reserves gigabytes of it. */
export async function checkAddressSpace({ probes }: Situation): Promise<Finding | null> {
  const space = limitOf('Max address space')
  if (!space) return null
  if (space.soft === Infinity) return found('address space', 'not limited')
  const used = Number(/^VmSize:\s+(\d+)/m.exec(readOptional('/proc/self/status') ?? '')?.[1] ?? 0) * KiB
  const free = Math.floor((space.soft - used) / MiB)
  const mapped = probes ? (await probes.mapMemory(GiB)) === null : free >= 1024
  const detail = `${free} MiB are left below the limit (ulimit -v), which guest memory and threads share`
  return mapped ? found('address space', detail) : lacking('address space', detail, raising('as', space.hard, Infinity))
}

/** Checks the size of files. A memfd is a file, and its size is that of the mapping (setrlimit(2), RLIMIT_FSIZE). */
export function checkFileSize(): Finding | null {
  const files = limitOf('Max file size')
  if (!files) return null
  if (files.soft === Infinity) return found('file size', 'not limited')
  const detail = `files may have ${Math.floor(files.soft / MiB)} MiB (ulimit -f); the limit holds for Mapping.memfd(), too`
  return files.soft >= GiB ? found('file size', detail) : lacking('file size', detail, raising('fsize', files.hard, Infinity))
}

/** Checks the memory for rings of trace events: beyond perf_event_mlock_kb for each CPU, it counts against RLIMIT_MEMLOCK (perf_event_open(2)). */
export function checkLockedMemory(): Finding | null {
  const locked = limitOf('Max locked memory')
  if (!locked) return null
  const paranoid = Number(readOptional('/proc/sys/kernel/perf_event_paranoid') ?? 2)
  if (hasCapability('ipc_lock') || paranoid < 0) return found('locked memory', 'rings of trace events are not limited')
  const cpus = availableParallelism()
  const free = Number(readOptional('/proc/sys/kernel/perf_event_mlock_kb') ?? 516) * KiB * cpus
  const needed = cpus * (4 * MiB + 4 * KiB)
  const detail = `${Math.floor((free + locked.soft) / KiB)} KiB, of which the rings of one trace take ${needed / KiB}`
  return free + locked.soft >= needed
    ? found('locked memory', detail)
    : lacking('locked memory', detail, raising('memlock', locked.hard, needed - free))
}
