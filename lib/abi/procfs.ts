/** What /proc and /sys say of this process and its host (proc(5)). */

import { readFileSync } from 'node:fs'
import { openingOr } from './exhausted.js'
import * as linux from './generated/constants.js'

/**
 * A file's text, or empty: for those who explain an error. What cannot be read leaves the explanation plainer, and never takes the error's place.
 */
export function glance(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/**
 * A file's text without its last newline, or null: for those who must know it.
 * @throws KvmError `limit` when this process can open no file, since nobody knows then
 */
export function readOptional(path: string): string | null {
  return openingOr(null, `reading ${path}`, () => readFileSync(path, 'utf8').trim())
}

/** The number behind a name at the beginning of a line: of /proc/meminfo, of /proc/PID/status. Undefined where there is none. */
export function numberIn(text: string, name: string): number | undefined {
  const [, digits] = new RegExp(`^${name}:?\\s+(\\d+)`, 'm').exec(text) ?? []
  return digits === undefined ? undefined : Number(digits)
}

/** A number that is all that a file holds: a sysctl. */
export function numberAt(path: string, read = glance): number | undefined {
  const text = read(path).trim()
  return /^-?\d+$/.test(text) ? Number(text) : undefined
}

/** A row of /proc/self/limits: `Max open files`. Infinity where there is no limit, undefined where it cannot be read. */
export function limitOf(row: string, limits = glance('/proc/self/limits')): { soft: number; hard: number } | undefined {
  const match = new RegExp(`^${row}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(limits)
  const number = (text: string) => (text === 'unlimited' ? Infinity : Number(text))
  return match ? { soft: number(match[1] as string), hard: number(match[2] as string) } : undefined
}

/** Whether a filter decides which system calls this process may make (seccomp(2)). */
export const isFiltered = (): boolean => numberIn(glance('/proc/self/status'), 'Seccomp') === 2

/** Capabilities by the names that setpriv(1) takes, with their bits. */
export const capabilityBits = {
  dac_override: linux.CAP_DAC_OVERRIDE,
  ipc_lock: linux.CAP_IPC_LOCK,
  sys_rawio: linux.CAP_SYS_RAWIO,
  sys_ptrace: linux.CAP_SYS_PTRACE,
  sys_admin: linux.CAP_SYS_ADMIN,
  sys_resource: linux.CAP_SYS_RESOURCE,
  perfmon: linux.CAP_PERFMON,
  bpf: linux.CAP_BPF
} as const
/** A capability that the library, or the doctor, asks for. */
export type LinuxCapability = keyof typeof capabilityBits

/** Whether a set of capabilities has one: of those that this process uses, or of those that a program started from here could have. */
export function holds(set: 'CapEff' | 'CapBnd', capability: LinuxCapability, status = glance('/proc/self/status')): boolean {
  const [, bits] = new RegExp(`^${set}:\\s*([0-9a-f]+)$`, 'm').exec(status) ?? []
  return bits !== undefined && ((BigInt(`0x${bits}`) >> BigInt(capabilityBits[capability])) & 1n) === 1n
}
