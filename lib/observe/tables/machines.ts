/** Every VM on the host, whoever runs it. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { checkInteger, checkOptions } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { opening, openingOr } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { visible } from '../../abi/text.js'
import { readOptional } from '../host.js'
import { type Evidence, evidence } from './evidence.js'
import { type ReadMachine, readMachines } from './reader.js'
import { type Summary, summarize } from './summary.js'
import { type ListedSlot, slotList } from './table-slot.js'
import { readTables, type Subject, type TableRange, type Tables } from './tables.js'
import { type Translation, translateIn } from './translate.js'

let makeMachine: (subject: Subject, command: string, vcpus: number, memslots: ListedSlot[], how: Evidence) => Machine

/** A VM that some process runs. */
export class Machine {
  readonly pid: number
  /** The process's command line, as that process has it: control characters and all. */
  readonly command: string
  readonly vcpus: number
  /** Ordered by address space and GPA. Empty when BPF could not read them: `evidence` says why. */
  readonly memslots: ListedSlot[]
  readonly evidence: Evidence
  readonly #subject: Subject

  static {
    makeMachine = (...given) => new Machine(ours, ...given)
  }

  private constructor(key: symbol, subject: Subject, command: string, vcpus: number, memslots: ListedSlot[], how: Evidence) {
    checkOurs(key, 'a Machine', 'machines()')
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
   * Its three tables, as columns.
   * @throws KvmError `closed` when it is gone, `unavailable` where it cannot be read
   */
  tables(range?: TableRange): Tables {
    return readTables(this.#subject, range)
  }
  /** One address through the three tables. */
  translate(gpa: number): Translation {
    return translateIn(this.#subject, gpa)
  }
  /** Its tables in numbers. */
  summary(): Summary {
    return summarize(this.tables())
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

function machineOf(read: ReadMachine): Machine {
  const { pid, fd, kvm, vcpus, torn, attempts, command } = read
  return makeMachine({ pid, fd, kvm }, commandOf(pid, command), vcpus, slotList(read.slots, pid), evidence({ source: 'bpf', torn, attempts }))
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
function byDescriptors(pids: number[], why: string): Machine[] {
  return pids.flatMap((pid) => {
    const links = descriptorsOf(pid)
    const vcpus = links.filter(([, target]) => target.startsWith('anon_inode:kvm-vcpu:')).length
    const how = evidence({ source: 'procfs', missing: [`the memslots were not read: ${why}`] })
    return links.filter(([, target]) => target === 'anon_inode:kvm-vm').map(([fd]) => makeMachine({ pid, fd }, commandOf(pid), vcpus, [], how))
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
function noMachine(pid: number, foreign: boolean, hidden: string | null): KvmError {
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
 * for (const machine of machines()) console.log(machine.pid, machine.command, machine.memslots.length)
 */
export function machines(options: { pid?: number } = {}): Machine[] {
  const { pid } = checkOptions('options', options, ['pid'])
  if (pid !== undefined) checkInteger('pid', pid, 1, 2 ** 31 - 1)
  const found = readMachines({ pid: pid ?? 0, tables: false })
  const list =
    typeof found === 'string'
      ? byDescriptors(pid === undefined ? allPids() : [pid], found)
      : found.filter(({ flags }) => (flags & 3) === 1).map(machineOf)
  if (list.length === 0 && pid !== undefined)
    throw noMachine(pid, typeof found !== 'string' && found.length > 0, typeof found === 'string' && !mayLook(pid) ? found : null)
  return list.sort((left, right) => left.pid - right.pid || left.fd - right.fd)
}
