import { readdirSync, readFileSync } from 'node:fs'

/** Names of what this process holds open that KVM or a mapping could have leaked. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** Resident bytes. */
export function resident(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}
