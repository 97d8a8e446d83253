/** Finds a process in /proc. It may be mounted from another PID namespace, in which the same number is another process (pid_namespaces(7)). */
import { readlinkSync } from 'node:fs'
import { glance } from '../../abi/procfs.js'

/** Whether the numbers of /proc are those of this process's PID namespace. If so, this process has its own number there, and no other one. */
export function procIsOurs(): boolean {
  const numbers = /^NSpid:\s*(.*)$/m.exec(glance('/proc/self/status'))?.[1]?.split(/\s+/)
  if (numbers) return numbers.join() === String(process.pid)
  try {
    return readlinkSync('/proc/self') === String(process.pid)
  } catch {
    return false
  }
}

/** Returns the folder of a process of this PID namespace, or null if this /proc does not show it. */
export function folderOf(pid: number | 'self'): string | null {
  if (pid === 'self' || pid === process.pid) return '/proc/self'
  return procIsOurs() ? `/proc/${pid}` : null
}

/** Why the contents of /proc are not shown. */
export const foreignProc = '/proc belongs to another PID namespace and shows other processes: mount -t proc proc /proc'
