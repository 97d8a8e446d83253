import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Names of what this process holds open that KVM or a mapping could have leaked. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** How many of them are VMs and vCPUs, tracepoints, or sockets: what is the library's, whatever the runtime opens for itself. */
export function ownDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return /kvm|perf_event|eventfd|socket:/.test(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      return false
    }
  }).length
}

/** The name of each thread of this process; one that ends meanwhile is not told. */
export function threads(): string[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      return [readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim()]
    } catch {
      return []
    }
  })
}

/** Resident bytes. */
export function resident(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}
