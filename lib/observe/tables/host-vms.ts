/** Every VM on the host, whoever runs it. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { checkInteger, checkOptions } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { opening, openingOr } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { visible } from '../../abi/text.js'
import { readOptional } from '../host.js'
import { type Evidence, evidence } from './evidence.js'
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
}

function commandOf(pid: number, fallback = ''): string {
  const path = `/proc/${pid}/cmdline`
  return openingOr('', `reading ${path}`, () => readFileSync(path, 'utf8').replace(/\0+$/, '').replaceAll('\0', ' ')) || fallback
}

function hostVmOf(read: ReadVm): HostVm {
  const { pid, fd, kvm, vcpus, torn, attempts, command } = read
  return makeHostVm({ pid, fd, kvm }, commandOf(pid, command), vcpus, slotList(read.slots, pid), evidence({ source: 'bpf', torn, attempts }))
}

/** Empty of a process that ended, or that is another user's. */
function descriptorsOf(pid: number): [fd: number, target: string][] {
  const folder = `/proc/${pid}/fd`
  return openingOr([], `reading ${folder}`, () => readdirSync(folder)).flatMap((name) => {
    const target = linkOf(`${folder}/${name}`)
    return target === null ? [] : [[Number(name), target] as [number, string]]
  })
}

/** null of one that was closed meanwhile. */
function linkOf(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}

/** Without BPF: who holds a VM, and how many vCPUs, by the names of open files. */
function byDescriptors(pids: number[], why: string): HostVm[] {
  return pids.flatMap((pid) => {
    const links = descriptorsOf(pid)
    const vcpus = links.filter(([, target]) => target.startsWith('anon_inode:kvm-vcpu:')).length
    const how = evidence({ source: 'procfs', missing: [`the memslots were not read: ${why}`] })
    return links.filter(([, target]) => target === 'anon_inode:kvm-vm').map(([fd]) => makeHostVm({ pid, fd }, commandOf(pid), vcpus, [], how))
  })
}

const allPids = () =>
  opening('reading /proc', () => readdirSync('/proc'))
    .filter((name) => /^\d+$/.test(name))
    .map(Number)

function mayLook(pid: number): boolean {
  try {
    opening(`reading /proc/${pid}/fd`, () => readdirSync(`/proc/${pid}/fd`))
    return true
  } catch (error) {
    if (error instanceof KvmError) throw error
    return (error as NodeJS.ErrnoException).code !== 'EACCES'
  }
}

/** Why a process has no VM to show; `hidden` says why VMs cannot be read, where its descriptors cannot be seen either. */
function noVm(pid: number, foreign: boolean, hidden: string | null): KvmError {
  if (!existsSync(`/proc/${pid}`))
    return new KvmError(
      'argument',
      `there is no process ${pid} here (in another pid namespace it has another number: look for it with node-kvm map)`,
      { argument: 'pid', pid }
    )
  const name = visible(readOptional(`/proc/${pid}/comm`) ?? 'ended meanwhile')
  if (hidden) return new KvmError('permission', `whether process ${pid} (${name}) runs a VM is hidden: it is another user's, and ${hidden}`, { pid })
  if (foreign)
    return new KvmError('argument', `process ${pid} (${name}) holds a descriptor of a VM whose memory is another process's`, { argument: 'pid', pid })
  return new KvmError('argument', `process ${pid} (${name}) runs no VM`, { argument: 'pid', pid })
}

/**
 * Every VM on this host, of QEMU, Firecracker, this process or any other, as far as the pid namespace reaches; it is read without the VM's
 * noticing.
 * @param options `pid` for one process's VMs only
 * @throws KvmError `argument` when process `pid` is none, or runs no VM
 * @example
 * for (const vm of hostVms()) console.log(vm.pid, vm.command, vm.memslots.length)
 */
export function hostVms(options: { pid?: number } = {}): HostVm[] {
  const { pid } = checkOptions('options', options, ['pid'])
  if (pid !== undefined) checkInteger('pid', pid, 1, 2 ** 31 - 1)
  const found = readVms({ pid: pid ?? 0, tables: false })
  const list =
    typeof found === 'string'
      ? byDescriptors(pid === undefined ? allPids() : [pid], found)
      : found.filter(({ flags }) => (flags & 3) === 1).map(hostVmOf)
  if (list.length === 0 && pid !== undefined)
    throw noVm(pid, typeof found !== 'string' && found.length > 0, typeof found === 'string' && !mayLook(pid) ? found : null)
  return list.sort((left, right) => left.pid - right.pid || left.fd - right.fd)
}
