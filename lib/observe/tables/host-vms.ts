/** Lists every VM on the host, whichever program runs it. */

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

/** @internal Returns where the VM is found again, or undefined for a value that is no HostVm. */
export let subjectOfHostVm: (vm: unknown) => Subject | undefined

/** A VM that some process of this host runs: see {@link hostVms}. {@link tables} and {@link translate} read its tables. */
export class HostVm {
  readonly pid: number
  /** The command line of the process, unchanged: it may contain control characters. */
  readonly command: string
  readonly vcpus: number
  /** The memslots by address space and GPA. The list is empty if BPF could not read them; `evidence` then says why. */
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

  /** The descriptor through which the process holds the VM. */
  get fd(): number {
    return this.#subject.fd
  }
  /** The bytes in memslots of address space 0. */
  get memory(): number {
    return this.memslots.filter(({ addressSpace }) => addressSpace === 0).reduce((sum, { size }) => sum + size, 0)
  }

  /**
   * Counts the VM's pages as {@link summarize} does.
   * @throws KvmError `closed` if the VM is gone, `unavailable` if it cannot be read
   */
  summary(): Summary {
    return summarize(readTables(this.#subject))
  }
  /** Returns a plain object, with the slots' addresses as numbers. */
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

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    const { pid, command, vcpus, memslots, memory, evidence: how } = this
    const known = how.source === 'bpf' ? { memslots: memslots.length, memory: hex(memory) } : {}
    return shown('HostVm', { pid, command, vcpus, ...known, source: how.source, torn: how.torn })
  }
}

/** The result of {@link hostVms}. */
export type HostVms = HostVm[] & {
  /** Where VMs may run that could not be seen, and why. If it is empty, every VM was seen; otherwise even an empty list of VMs proves nothing. */
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
    ...(folderOf(pid) === null ? [`the memory behind its memslots was not read: ${foreignProc}`] : [])
  ]
  const how = evidence({ source: 'bpf', torn, attempts, missing })
  return makeHostVm({ pid, fd, kvm }, commandOf(pid, command), vcpus, slotList(read.slots, pid), how)
}

/** Returns null for a process of another user, and an empty list for a process that ended. */
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

/** Returns null for a descriptor that was closed meanwhile. */
function linkOf(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}

/** The VMs that were found, and where others may be. */
interface Found {
  vms: HostVm[]
  unseen: string[]
  /** The processes whose descriptors are hidden. */
  hidden: number[]
}

/** Lists VMs without BPF. The names of open files tell which process holds a VM, and how many vCPUs it has. */
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

/** Says which processes neither BPF nor /proc shows here. */
function unseenProcesses(withoutBpf: boolean): string[] {
  return [
    ...(inOwnNamespace('pid')
      ? ['VMs of processes outside of this PID namespace are not seen: run it outside (a container: start it with --pid=host)']
      : []),
    ...(withoutBpf && !procIsOurs() ? [`VMs of other processes are not seen: ${foreignProc}`] : [])
  ]
}

/** Whether a process exists, even if /proc does not show it: kill(2) with signal 0. */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Explains why a process has no VM to show. `unread` says why VMs cannot be read in the kernel; then its descriptors decide, if they can be seen. */
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
    return new KvmError('argument', `process ${pid} (${name}) holds a descriptor of a VM whose memory belongs to another process`, {
      argument: 'pid',
      pid
    })
  return new KvmError('argument', `process ${pid} (${name}) runs no VM`, { argument: 'pid', pid })
}

/**
 * Finds every VM on this host, of QEMU, Firecracker, this process or any other, as far as the pid namespace reaches. Reading does not disturb a VM.
 * If a VM ends meanwhile, the evidence in its row says so. `unseen` says what could not be examined.
 * @param options `pid` limits the search to the VMs of one process
 * @throws KvmError `argument` if `pid` is no process, or runs no VM
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
