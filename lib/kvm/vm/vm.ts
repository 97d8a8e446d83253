/** A virtual machine. */
import { inspect } from 'node:util'
import { KvmError, takeEach } from '../../abi/errors.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { Handle } from '../../abi/ioctls.js'
import type { NativeVm } from '../../abi/native.js'
import { type DirtyLog, type DirtyLogOptions, makeDirtyLog } from '../../memory/dirty-log.js'
import { createGuestMemfd, type GuestMemfd, type GuestMemfdOptions } from '../../memory/guest-memfd.js'
import { type Memslots, makeMemslots, tableOf } from '../../memory/memslots.js'
import { makeVmCapabilities, type VmCapabilities } from '../capabilities.js'
import { makeStatistics, type Statistics } from '../statistics.js'
import type { VcpuHost, WriteQueues } from '../vcpu/host.js'
import type { Vcpu } from '../vcpu/vcpu.js'
import { Belongings } from './belongings.js'
import { type CoalescedHandler, type CoalescedRange, type CoalescedZone, Coalescing } from './coalesced.js'
import { type GuestMemory, makeGuestMemory } from './guest-memory.js'
import { makeInterrupts, type VmInterrupts } from './interrupts.js'
import { type IoEventfd, type IoEventfdOptions, makeIoEventfd } from './ioeventfd.js'
import { limitsOf, type VmLimits } from './limits.js'
import { prepareVm } from './prepare.js'
import { tokenOf, type VmToken, vmOf } from './share.js'
import { Vcpus } from './vcpus.js'

/** @internal a VM that nobody has yet */
export let makeVm: (vm: NativeVm) => Vm

/**
 * The descriptor of a VM, and whether its end has begun: what whoever observes it needs beyond what it offers everybody. Undefined for what is no Vm.
 * @internal
 * @throws KvmError `closed`
 */
export let observedOf: (vm: unknown) => { fd: number; isClosing: () => boolean } | undefined

/**
 * A virtual machine. Made by {@link Kvm.createVm}.
 * @example
 * using vm = kvm.createVm()
 * vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(2 * MiB) })
 */
export class Vm implements VcpuHost, Disposable {
  readonly memslots: Memslots
  readonly memory: GuestMemory
  readonly interrupts: VmInterrupts
  readonly capabilities: VmCapabilities
  /** Counters of the VM, without privilege: KVM_GET_STATS_FD. */
  readonly stats: Statistics
  readonly limits: VmLimits
  readonly #native: NativeVm
  readonly #handle: Handle
  readonly #vcpus: Vcpus
  readonly #queues: WriteQueues = { writes: undefined }
  readonly #belongings: Belongings
  #dirtyLog: DirtyLog | undefined

  static {
    makeVm = (vm) => {
      const made = new Vm(ours, vm)
      prepareVm(made.#handle)
      return made
    }
    observedOf = (vm) => {
      if (typeof vm !== 'object' || vm === null || !(#native in vm)) return undefined
      vm.#handle.checkOpen()
      return { fd: vm.#native.fd, isClosing: () => vm.#belongings.closing }
    }
  }

  private constructor(key: symbol, vm: NativeVm) {
    checkOurs(key, 'a Vm', 'Kvm.createVm() or Vm.attach()')
    const handle = new Handle(vm, 'this VM')
    this.#native = vm
    this.#handle = handle
    this.#belongings = new Belongings(handle)
    this.capabilities = makeVmCapabilities(handle)
    this.limits = limitsOf(this.capabilities, vm.runPageSize)
    this.memslots = makeMemslots(vm, handle, this.limits.memslots)
    this.memory = makeGuestMemory(handle, this.memslots)
    this.stats = makeStatistics(vm, handle)
    this.interrupts = makeInterrupts({ handle, capabilities: this.capabilities, belongings: this.#belongings })
    this.#vcpus = new Vcpus(vm, handle, this.limits, this, this.#queues)
  }

  /** Whether close() was called. Any other use then throws `closed`. */
  get closed(): boolean {
    return this.#handle.closed
  }
  /** The vCPUs that this environment created or asked for, by id. */
  get vcpus(): ReadonlyMap<number, Vcpu> {
    return this.#vcpus.known
  }

  /**
   * A new vCPU: KVM_CREATE_VCPU.
   * @param id its APIC id; the next free one if absent. An id cannot be used twice, even after close
   * @throws KvmError `limit` when the host allows no more
   */
  createVcpu(id?: number): Vcpu {
    this.#belongings.checkOpen()
    return this.#vcpus.create(id)
  }

  /**
   * The vCPU of that number, whichever environment created it. It stays open as long as one of them has not closed it.
   * @throws KvmError `argument` when there is none
   */
  vcpu(id: number): Vcpu {
    this.#belongings.checkOpen()
    return this.#vcpus.find(id)
  }

  /**
   * What another Worker of this process attaches the VM by: post it there. One token serves one attach(). It holds the VM, even when nothing else
   * does, until it is attached, the VM is closed by the environment that created it, or the environment that called share() ends.
   */
  share(): VmToken {
    this.#handle.checkOpen()
    return tokenOf(this.#native)
  }

  /**
   * The same VM in another Worker: its memslots with their mappings, and its vCPUs by {@link Vm.vcpu}. To close it lets go of it; when the
   * environment that created the VM closes it, it is closed for all.
   * @throws KvmError `argument` for what is no token, or was used; `closed`
   * @example
   * using same = Vm.attach(vm.share())
   * same.memslots.length === vm.memslots.length   // true
   */
  static attach(token: VmToken): Vm {
    return new Vm(ours, vmOf(token))
  }

  /**
   * Memory that only the guest reaches, for memslots of this VM: KVM_CREATE_GUEST_MEMFD.
   * @throws KvmError `unavailable` on kernels and VM types without it
   */
  createGuestMemfd(options: GuestMemfdOptions): GuestMemfd {
    return createGuestMemfd(this.#native, this.#handle, options)
  }

  /** A place whose writes become events of the event loop instead of exits: KVM_IOEVENTFD. */
  ioeventfd(options: IoEventfdOptions): IoEventfd {
    return this.#belongings.keep((onClose) => makeIoEventfd(this.#native, this.#handle, options, onClose))
  }

  /**
   * Queues the guest's writes to a range instead of leaving the guest for each (KVM_REGISTER_COALESCED_MMIO). The handler gets them before
   * run() returns its next exit, or a started vCPU's is told; a full queue is an exit, that of the write which found no room. The queue is one for
   * the VM: what was written while another Worker ran the vCPU stays in it until this one's next exit or {@link CoalescedZone.drain}.
   * @throws KvmError `argument`, `closed`, `overlap` with a coalesced range of this Worker or another, `ioctl`
   * @example
   * using zone = vm.coalesce({ port: 0x3f8, size: 1 }, (writes) => console.log(writes.length))
   */
  coalesce(range: CoalescedRange, handler: CoalescedHandler): CoalescedZone {
    this.#belongings.checkOpen()
    return (this.#queues.writes ??= new Coalescing(this.#native, this.#handle)).add(range, handler)
  }

  /**
   * Begins to log which pages change, of all memslots: by the guest, and by this library.
   * @throws KvmError `in-use` while another log is open, `unavailable`, `ioctl` for a ring once there are vCPUs
   */
  dirtyLog(options: DirtyLogOptions = {}): DirtyLog {
    this.#belongings.checkOpen()
    tableOf(this.memslots).refuseInTransaction()
    if (this.#dirtyLog?.closed === false) throw new KvmError('in-use', 'this VM has a dirty log; close it first')
    const host = { native: this.#native, handle: this.#handle, hasVcpus: () => this.vcpus.size > 0 }
    return (this.#dirtyLog = makeDirtyLog(host, tableOf(this.memslots), options))
  }

  /**
   * Closes the vCPUs and the VM; its memslots let go of their memory. Started vCPUs are stopped, and where this environment created the VM, runs of
   * other Workers end with a `closed` error, and its memslots are gone for them, too. Coalesced writes that wait are delivered first. All of it is
   * closed, also when something of it cannot be closed properly; that is thrown afterwards. A second call does nothing.
   * @throws KvmError `state` inside a transaction of its memslots
   */
  close(): void {
    if (this.#belongings.closing) return
    tableOf(this.memslots).refuseInTransaction()
    this.#belongings.closing = true
    takeEach([
      ...this.#belongings.closeEach(),
      () => this.#dirtyLog?.close(),
      ...[...this.vcpus.values()].map((vcpu) => () => vcpu.close()),
      () => this.#queues.writes?.drain(),
      () => this.stats.close(),
      () => this.#native.close(),
      () => tableOf(this.memslots).released()
    ])
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('Vm', { vcpus: this.vcpus.size, memslots: this.memslots.length })
  }
}
