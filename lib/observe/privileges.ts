/** What the kernel lets this process do (credentials(7), capabilities(7), user_namespaces(7)), and the shell commands that grant more. */
import { accessSync, constants, existsSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { capabilityBits, holds, type LinuxCapability, numberIn, readOptional } from '../abi/procfs.js'
import { quoted } from '../abi/text.js'

export type { LinuxCapability }

/** Returns the status file, or '' if there is no /proc. It throws if this process can open no file, since then nobody knows. */
const status = (): string => readOptional('/proc/self/status') ?? ''

const capabilityNames = Object.keys(capabilityBits) as LinuxCapability[]

/** Whether this process may use a capability on the host: those that the library asks for count only in the first user namespace. */
export const hasCapability = (capability: LinuxCapability): boolean => holds('CapEff', capability, status()) && !inOwnNamespace('user')
/** Whether a program that root starts from here could have the capability. */
export const mayGainCapability = (capability: LinuxCapability): boolean => holds('CapBnd', capability, status())

/** Whether setuid programs such as sudo gain nothing here (PR_SET_NO_NEW_PRIVS). */
export const gainsNothing = (): boolean => numberIn(status(), 'NoNewPrivs') === 1

/** PROC_USER_INIT_INO and PROC_PID_INIT_INO of the kernel: its first namespaces have the same numbers on every host. */
const firstNamespaces = { user: 'user:[4026531837]', pid: 'pid:[4026531836]' } as const

/** Whether this process is in a namespace that somebody made, not in the kernel's first one. */
export function inOwnNamespace(kind: keyof typeof firstNamespaces): boolean {
  try {
    return readlinkSync(`/proc/self/ns/${kind}`) !== firstNamespaces[kind]
  } catch {
    // The namespace links of a process that is not dumpable belong to root. Everybody can read its map of user ids.
    const map = kind === 'user' ? readOptional('/proc/self/uid_map') : null
    return map !== null && map.trim().split(/\s+/).join() !== '0,0,4294967295'
  }
}

/** Returns the kind of container that this process says it runs in, or null outside of containers. */
export function containerKind(): string | null {
  if (existsSync('/.dockerenv')) return 'docker'
  if (existsSync('/run/.containerenv')) return 'podman'
  return process.env['container'] || readOptional('/run/systemd/container') || null
}

/** Whether a program of this name is in a folder of PATH, or in one that only root's PATH has. */
export function isInstalled(program: string, path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`): boolean {
  return path.split(':').some((folder) => {
    try {
      accessSync(join(folder || '.', program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * Returns the command in a form that runs as root: by sudo, or by su if sudo is not installed.
 * @param command anything that a shell accepts
 */
export function asRoot(command: string): string {
  if (process.getuid?.() === 0) return command
  const isSimple = !/[;&|<>()$'"]/.test(command)
  if (isInstalled('sudo')) return isSimple ? `sudo ${command}` : `sudo sh -c ${quoted(command)}`
  return `su -p -s /bin/sh -c ${quoted(command)}`
}

/**
 * Returns a command that opens a shell of this user whose programs have more capabilities than this process. They are ambient: a program that gets
 * its capabilities from its file (setcap) instead is not dumpable, and its own /proc/self belongs to root (proc(5)).
 */
export function shellWith(...wanted: readonly LinuxCapability[]): string {
  const capabilities = capabilityNames.filter((name) => wanted.includes(name) || hasCapability(name)).map((name) => `+${name}`)
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
  const others = (process.getgroups?.() ?? []).filter((group) => group !== gid)
  const groups = others.length === 0 ? '--clear-groups' : `--groups ${others.join()}`
  const sets = `--inh-caps ${capabilities.join()} --ambient-caps ${capabilities.join()}`
  const command = `setpriv --reuid ${uid} --regid ${gid} ${groups} ${sets} -- ${quoted(process.env['SHELL'] || '/bin/sh')}`
  const elevated = asRoot(command)
  return elevated.startsWith('sudo ') ? elevated.replace('sudo ', 'sudo -E ') : elevated
}

const prices: Partial<Record<LinuxCapability, string>> = {
  perfmon: 'watch every process of this host',
  bpf: "read the kernel's memory, and with it every process's",
  sys_ptrace: 'read and change every process',
  ipc_lock: 'lock all of memory',
  sys_admin: 'take over the host: CAP_SYS_ADMIN is nearly root'
}
/** Returns what it costs to have such a shell. */
export const priceOf = (...capabilities: readonly LinuxCapability[]): string =>
  `every program started from that shell, until you leave it, can ${capabilities.map((name) => prices[name] ?? name).join(', and ')}`
