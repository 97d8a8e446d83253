/** Where /proc has a process: it may be mounted from another PID namespace than this one, where the same number is another process (pid_namespaces(7)). */
import { readlinkSync } from 'node:fs'
import { glance } from '../../abi/procfs.js'

/** Whether the numbers of /proc are those of this process's PID namespace: then it has this one by the number that it has for itself, and by no other. */
export function procIsOurs(): boolean {
  const numbers = /^NSpid:\s*(.*)$/m.exec(glance('/proc/self/status'))?.[1]?.split(/\s+/)
  if (numbers) return numbers.join() === String(process.pid)
  try {
    return readlinkSync('/proc/self') === String(process.pid)
  } catch {
    return false
  }
}

/** The folder of a process of this PID namespace, or null where this /proc does not have it. */
export function folderOf(pid: number | 'self'): string | null {
  if (pid === 'self' || pid === process.pid) return '/proc/self'
  return procIsOurs() ? `/proc/${pid}` : null
}

/** Why what stands in /proc is not shown. */
export const foreignProc = '/proc is that of another PID namespace, and its processes are others: mount -t proc proc /proc'
