/** What /proc and /sys say about this process and its host (proc(5)). */

import { readFileSync } from 'node:fs'
import { openingOr } from './exhausted.js'
import * as linux from './generated/constants.js'

/** Reads a file for the explanation of an error, or returns ''. An unreadable file makes the explanation shorter, but never replaces the error. */
export function glance(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/**
 * Reads a file whose absence means something: returns its text without the last newline, or null.
 * @throws KvmError `limit` if this process can open no file, since then nobody knows
 */
export function readOptional(path: string): string | null {
  return openingOr(null, `reading ${path}`, () => readFileSync(path, 'utf8').trim())
}

/** Returns the number after a name at the start of a line, as in /proc/meminfo and /proc/PID/status, or undefined. */
export function numberIn(text: string, name: string): number | undefined {
  const [, digits] = new RegExp(`^${name}:?\\s+(\\d+)`, 'm').exec(text) ?? []
  return digits === undefined ? undefined : Number(digits)
}

/** Returns the number that is a file's only content, as in a sysctl, or undefined. */
export function numberAt(path: string, read = glance): number | undefined {
  const text = read(path).trim()
  return /^-?\d+$/.test(text) ? Number(text) : undefined
}

/** Returns a row of /proc/self/limits, such as `Max open files`: Infinity for no limit, undefined if the row cannot be read. */
export function limitOf(row: string, limits = glance('/proc/self/limits')): { soft: number; hard: number } | undefined {
  const match = new RegExp(`^${row}\\s+(\\S+)\\s+(\\S+)`, 'm').exec(limits)
  const number = (text: string) => (text === 'unlimited' ? Infinity : Number(text))
  return match ? { soft: number(match[1] as string), hard: number(match[2] as string) } : undefined
}

/** Whether a filter decides which system calls this process may make (seccomp(2)). */
export const isFiltered = (): boolean => numberIn(glance('/proc/self/status'), 'Seccomp') === 2

/** The bits of capabilities, by the names that setpriv(1) takes. */
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

/** Whether a set has a capability: CapEff is what this process uses, CapBnd what a program started from it could have. */
export function holds(set: 'CapEff' | 'CapBnd', capability: LinuxCapability, status = glance('/proc/self/status')): boolean {
  const [, bits] = new RegExp(`^${set}:\\s*([0-9a-f]+)$`, 'm').exec(status) ?? []
  return bits !== undefined && ((BigInt(`0x${bits}`) >> BigInt(capabilityBits[capability])) & 1n) === 1n
}
