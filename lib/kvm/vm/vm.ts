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

/** @internal Makes a VM from a native one that no Vm has yet. */
export let makeVm: (vm: NativeVm) => Vm

/** @internal Returns what an observer of a VM needs beyond its public members. Returns undefined for a value that is no Vm, and throws `closed`. */
export let observedOf: (vm: unknown) => { fd: number; isClosing: () => boolean } | undefined

/**
 * A virtual machine. {@link Kvm.createVm} makes it.
 * @example
 * using vm = kvm.createVm()
 * vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(2 * MiB) })
 */
export class Vm implements VcpuHost, Disposable {
  readonly memslots: Memslots
  readonly memory: GuestMemory
  readonly interrupts: VmInterrupts
  readonly capabilities: VmCapabilities
  /** The counters of the VM, which need no privilege: KVM_GET_STATS_FD. */
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

  /** Whether close() was called. Every other call then throws `closed`. */
  get closed(): boolean {
    return this.#handle.closed
  }
  /** The vCPUs that this environment created or asked for, by id. */
  get vcpus(): ReadonlyMap<number, Vcpu> {
    return this.#vcpus.known
  }

  /**
   * Creates a vCPU: KVM_CREATE_VCPU.
   * @param id its APIC id; the default is the next free one. An id cannot be used twice, even after close()
   * @throws KvmError `limit` if the host allows no more
   */
  createVcpu(id?: number): Vcpu {
    this.#belongings.checkOpen()
    return this.#vcpus.create(id)
  }

  /**
   * Returns the vCPU with that number, whichever environment created it. A vCPU stays open until every environment that has it has closed it.
   * @throws KvmError `argument` if there is none
   */
  vcpu(id: number): Vcpu {
    this.#belongings.checkOpen()
    return this.#vcpus.find(id)
  }

  /**
   * Returns a token: post it to another Worker of this process, which passes it to attach(), once. The token keeps the VM open, even if nothing
   * else does, until it is attached, the environment that created the VM closes it, or the environment that called share() ends.
   */
  share(): VmToken {
    this.#handle.checkOpen()
    return tokenOf(this.#native)
  }

  /**
   * Attaches a VM in another Worker: its memslots with their mappings, and its vCPUs by {@link Vm.vcpu}. Its close() only releases this Worker's
   * hold; when the environment that created the VM closes it, the VM is closed for all.
   * @throws KvmError `argument` for a value that is no token, or a token that was used; `closed`
   * @example
   * using same = Vm.attach(vm.share())
   * same.memslots.length === vm.memslots.length   // true
   */
  static attach(token: VmToken): Vm {
    return new Vm(ours, vmOf(token))
  }

  /**
   * Creates memory that only the guest reaches, for memslots of this VM: KVM_CREATE_GUEST_MEMFD.
   * @throws KvmError `unavailable` on kernels and VM types that lack it
   */
  createGuestMemfd(options: GuestMemfdOptions): GuestMemfd {
    return createGuestMemfd(this.#native, this.#handle, options)
  }

  /** Makes an address whose writes become events in the event loop instead of exits: KVM_IOEVENTFD. */
  ioeventfd(options: IoEventfdOptions): IoEventfd {
    return this.#belongings.keep((onClose) => makeIoEventfd(this.#native, this.#handle, options, onClose))
  }

  /**
   * Queues the guest's writes to a range, so that the guest need not leave for each (KVM_REGISTER_COALESCED_MMIO). The handler gets them before run()
   * returns its next exit, or before a handler of a started vCPU gets its exit. If the queue is full, the next write is an exit. A VM has one queue:
   * writes made while another Worker ran the vCPU stay in it until this Worker's next exit or {@link CoalescedZone.drain}.
   * @throws KvmError `argument`, `closed`, `overlap` with a coalesced range of this Worker or another, `ioctl`
   * @example
   * using zone = vm.coalesce({ port: 0x3f8, size: 1 }, (writes) => console.log(writes.length))
   */
  coalesce(range: CoalescedRange, handler: CoalescedHandler): CoalescedZone {
    this.#belongings.checkOpen()
    return (this.#queues.writes ??= new Coalescing(this.#native, this.#handle)).add(range, handler)
  }

  /**
   * Begins to log the pages that change in all memslots, whether the guest or this library writes them.
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
   * Closes the vCPUs and the VM; its memslots release their memory. Started vCPUs are stopped. If this environment created the VM, runs in other
   * Workers end with a `closed` error, and the memslots are gone for these Workers, too. Coalesced writes that wait are delivered first. Everything
   * is closed, even if closing one part fails; the error is thrown afterwards. A second call does nothing.
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
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('Vm', { vcpus: this.vcpus.size, memslots: this.memslots.length })
  }
}
