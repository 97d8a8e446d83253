/** Every VM on the host, whoever runs it. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { inspect } from 'node:util'
import { checkInteger, checkOptions, hex } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { opening, openingOr } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { readOptional } from '../../abi/procfs.js'
import { shown, visible } from '../../abi/text.js'
import { inOwnNamespace } from '../privileges.js'
import { type Evidence, evidence } from './evidence.js'
import { folderOf, foreignProc, procIsOurs } from './process-folder.js'
import { type ReadVm, readVms } from './reader.js'
import { type Summary, summarize } from './summary.js'
import { type ListedSlot, slotList } from './table-slot.js'
import { readTables, type Subject } from './tables.js'

let makeHostVm: (subject: Subject, command: string, vcpus: number, memslots: ListedSlot[], how: Evidence) => HostVm

/** @internal where it is found again; undefined for what is no HostVm */
export let subjectOfHostVm: (vm: unknown) => Subject | undefined

/** A VM that some process of this host runs: see {@link hostVms}. Its tables are had by {@link tables} and {@link translate}. */
export class HostVm {
  readonly pid: number
  /** The process's command line, as that process has it: control characters and all. */
  readonly command: string
  readonly vcpus: number
  /** Ordered by address space and GPA. Empty when BPF could not read them: `evidence` says why. */
  readonly memslots: ListedSlot[]
  readonly evidence: Evidence
  readonly #subject: Subject

  static {
    makeHostVm = (...given) => new HostVm(ours, ...given)
    subjectOfHostVm = (vm) => (typeof vm === 'object' && vm !== null && #subject in vm ? vm.#subject : undefined)
  }

  private constructor(key: symbol, subject: Subject, command: string, vcpus: number, memslots: ListedSlot[], how: Evidence) {
    checkOurs(key, 'a HostVm', 'hostVms()')
    this.pid = subject.pid
    this.command = command
    this.vcpus = vcpus
    this.memslots = memslots
    this.evidence = how
    this.#subject = subject
  }

  /** The descriptor by which the process holds it. */
  get fd(): number {
    return this.#subject.fd
  }
  /** Bytes in memslots of address space 0. */
  get memory(): number {
    return this.memslots.filter(({ addressSpace }) => addressSpace === 0).reduce((sum, { size }) => sum + size, 0)
  }

  /**
   * Its tables in numbers, as {@link summarize} counts them.
   * @throws KvmError `closed` when it is gone, `unavailable` where it cannot be read
   */
  summary(): Summary {
    return summarize(readTables(this.#subject))
  }
  /** A plain object: `slots` with addresses as numbers. */
  toJSON() {
    const { pid, command, vcpus, evidence: how } = this
    const slots = this.memslots.map(({ id, addressSpace, gpa, size, hva, flags, backing, path }) => ({
      id,
      addressSpace,
      gpa,
      size,
      hva,
      flags,
      backing,
      path
    }))
    return { pid, command, vcpus, slots, evidence: how }
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    const { pid, command, vcpus, memslots, memory, evidence: how } = this
    const known = how.source === 'bpf' ? { memslots: memslots.length, memory: hex(memory) } : {}
    return shown('HostVm', { pid, command, vcpus, ...known, source: how.source, torn: how.torn })
  }
}

/** What {@link hostVms} found. */
export type HostVms = HostVm[] & {
  /** Where VMs may run that it could not see, and why; empty where it saw all. An empty list is no news of these. */
  readonly unseen: readonly string[]
}

function commandOf(pid: number, fallback = ''): string {
  const folder = folderOf(pid)
  if (folder === null) return fallback
  const path = `${folder}/cmdline`
  return openingOr('', `reading ${path}`, () => readFileSync(path, 'utf8').replace(/\0+$/, '').replaceAll('\0', ' ')) || fallback
}

function hostVmOf(read: ReadVm): HostVm {
  const { pid, fd, kvm, vcpus, torn, attempts, command, ended } = read
  const missing = [
    ...(ended ? ['it ended while it was read'] : []),
    ...(folderOf(pid) === null ? [`what is behind its memslots was not read: ${foreignProc}`] : [])
  ]
  const how = evidence({ source: 'bpf', torn, attempts, missing })
  return makeHostVm({ pid, fd, kvm }, commandOf(pid, command), vcpus, slotList(read.slots, pid), how)
}

/** null of a process that is another user's; empty of one that ended. */
function descriptorsOf(pid: number): [fd: number, target: string][] | null {
  const folder = `${folderOf(pid)}/fd`
  try {
    return opening(`reading ${folder}`, () => readdirSync(folder)).flatMap((name) => {
      const target = linkOf(`${folder}/${name}`)
      return target === null ? [] : [[Number(name), target] as [number, string]]
    })
  } catch (error) {
    if (error instanceof KvmError) throw error
    return ['EACCES', 'EPERM'].includes(String((error as NodeJS.ErrnoException).code)) ? null : []
  }
}

/** null of one that was closed meanwhile. */
function linkOf(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}

/** Of VMs, and where others may be. */
interface Found {
  vms: HostVm[]
  unseen: string[]
  /** Processes whose descriptors are hidden. */
  hidden: number[]
}

/** Without BPF: who holds a VM, and how many vCPUs, by the names of open files. */
function byDescriptors(pids: number[], why: string): Found {
  const hidden: number[] = []
  const vms = pids.flatMap((pid) => {
    const links = descriptorsOf(pid)
    if (links === null) hidden.push(pid)
    const vcpus = (links ?? []).filter(([, target]) => target.startsWith('anon_inode:kvm-vcpu:')).length
    const how = evidence({ source: 'procfs', missing: [`the memslots were not read: ${why}`] })
    return (links ?? []).filter(([, target]) => target === 'anon_inode:kvm-vm').map(([fd]) => makeHostVm({ pid, fd }, commandOf(pid), vcpus, [], how))
  })
  const named = `${hidden.slice(0, 10).join(', ')}${hidden.length > 10 ? ', ...' : ''}`
  const unseen = hidden.length > 0 ? [`whether ${hidden.length} processes of other users run VMs is hidden (${named}): ${why}`] : []
  return { vms, unseen, hidden }
}

function allPids(): number[] {
  if (!procIsOurs()) return [process.pid]
  return opening('reading /proc', () => readdirSync('/proc'))
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** Of processes that neither BPF nor /proc shows here. */
function unseenProcesses(withoutBpf: boolean): string[] {
  return [
    ...(inOwnNamespace('pid')
      ? ['VMs of processes outside of this PID namespace are not seen: run it outside (a container: start it with --pid=host)']
      : []),
    ...(withoutBpf && !procIsOurs() ? [`VMs of other processes are not seen: ${foreignProc}`] : [])
  ]
}

/** kill(2) with no signal: also of processes that /proc does not show. */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Why a process has no VM to show; `unread` says why VMs cannot be read in the kernel, where its descriptors cannot be seen either. */
function noVm(pid: number, foreign: boolean, unread: string | null): KvmError {
  if (!exists(pid))
    return new KvmError(
      'argument',
      `there is no process ${pid} here (in another pid namespace it has another number: look for it with node-kvm map)`,
      { argument: 'pid', pid }
    )
  const folder = folderOf(pid)
  if (folder === null && unread) return new KvmError('unavailable', `whether process ${pid} runs a VM is not seen: ${foreignProc}`, { pid })
  const name = visible((folder && readOptional(`${folder}/comm`)) ?? 'ended meanwhile')
  if (unread) return new KvmError('permission', `whether process ${pid} (${name}) runs a VM is hidden: it is another user's, and ${unread}`, { pid })
  if (foreign)
    return new KvmError('argument', `process ${pid} (${name}) holds a descriptor of a VM whose memory is another process's`, { argument: 'pid', pid })
  return new KvmError('argument', `process ${pid} (${name}) runs no VM`, { argument: 'pid', pid })
}

/**
 * Every VM on this host, of QEMU, Firecracker, this process or any other, as far as the pid namespace reaches; it is read without the VM's
 * noticing. One that ends meanwhile is a row whose evidence says so. What could not be looked at is told in `unseen`.
 * @param options `pid` for one process's VMs only
 * @throws KvmError `argument` when process `pid` is none, or runs no VM
 * @example
 * const found = hostVms()
 * for (const vm of found) console.log(vm.pid, vm.command, vm.memslots.length)
 * console.log(found.unseen.join('\n'))
 */
export function hostVms(options: { pid?: number } = {}): HostVms {
  const { pid } = checkOptions('options', options, ['pid'])
  if (pid !== undefined) checkInteger('pid', pid, 1, 2 ** 31 - 1)
  const read = readVms({ pid: pid ?? 0, tables: false })
  const unread = typeof read === 'string' ? read : null
  const { vms, unseen, hidden }: Found =
    typeof read === 'string'
      ? byDescriptors(pid === undefined ? allPids() : [pid].filter((one) => folderOf(one) !== null), read)
      : { vms: read.filter(({ flags }) => (flags & 3) === 1).map(hostVmOf), unseen: [], hidden: [] }
  if (vms.length === 0 && pid !== undefined) {
    const isHidden = hidden.length > 0 || (unread !== null && folderOf(pid) === null)
    throw noVm(pid, typeof read !== 'string' && read.length > 0, isHidden ? unread : null)
  }
  vms.sort((left, right) => left.pid - right.pid || left.fd - right.fd)
  return Object.assign(vms, { unseen: pid === undefined ? [...unseen, ...unseenProcesses(unread !== null)] : [] })
}
