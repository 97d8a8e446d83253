import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Counts the descriptors of this process, some of which KVM or a mapping could have leaked. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** Counts the descriptors that are VMs and vCPUs, tracepoints, or sockets: these are the library's, whatever the runtime opens for itself. */
export function ownDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return /kvm|perf_event|eventfd|socket:/.test(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      return false
    }
  }).length
}

/** Reads a file of each thread of this process. A thread that ends meanwhile is left out. */
export function threadFiles(name: 'comm' | 'sched'): string[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      return [readFileSync(`/proc/self/task/${id}/${name}`, 'utf8').trim()]
    } catch {
      return []
    }
  })
}

/** The name of each thread. */
export const threads = (): string[] => threadFiles('comm')

/** The resident memory in bytes. */
export function resident(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}

/** Whether something is mapped at an address. */
export function isMapped(address: number): boolean {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[0] as string).split('-').map((bound) => Number.parseInt(bound, 16)))
    .some(([start = 0, end = 0]) => start <= address && address < end)
}
