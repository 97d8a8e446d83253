/** A machine: its memslots and vCPUs. */
import { argumentError, checkAddress, checkBytes, checkInteger, hex } from '../../abi/arguments.js'
import { checked, errnoName, ioctlError, KvmError, takeEach } from '../../abi/errors.js'
import { making, zeroed } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { type NativeVcpu, type NativeVm, native } from '../../abi/native.js'
import { KVM_CHECK_EXTENSION, KVM_ENABLE_CAP, KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR, type Request } from '../../abi/requests.js'
import { EnableCap } from '../../abi/structures.js'
import { type DirtyLog, type DirtyLogOptions, makeDirtyLog } from '../../memory/dirty-log.js'
import { createGuestMemfd, type GuestMemfd, type GuestMemfdOptions } from '../../memory/guest-memfd.js'
import { type Memslots, makeMemslots, tableOf } from '../../memory/memslots.js'
import type { EventSource } from '../eventfd.js'
import { type Statistics, statisticsOf } from '../statistics.js'
import { makeVcpu, type Vcpu } from '../vcpu/vcpu.js'
import { type CoalescedHandler, type CoalescedRange, type CoalescedZone, Coalescing } from './coalesced.js'
import {
  createIrqchip,
  createPit,
  type GsiRoute,
  type Irqfd,
  type IrqfdOptions,
  type MsiMessage,
  makeIrqfd,
  setGsiRouting,
  setIrqLine,
  signalMsi
} from './interrupts.js'
import { type IoEventfd, type IoEventfdOptions, makeIoEventfd } from './ioeventfd.js'

/** Of {@link Vm.share}, for postMessage(). */
export interface VmToken {
  readonly nodeKvmVm: bigint
}

/** What the host allows a VM. */
export interface VmLimits {
  memslots: number
  vcpus: number
  /** Ids lie below this. */
  vcpuIds: number
  /** Bytes of a vCPU's shared pages. */
  runPageSize: number
}

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
 * vm.write(0x1000, code)
 */
export class Vm implements Disposable {
  readonly memslots: Memslots
  readonly limits: VmLimits
  readonly #native: NativeVm
  readonly #vcpus = new Map<number, Vcpu>()
  readonly #queues: { writes: Coalescing | undefined } = { writes: undefined }
  readonly #sources = new Set<EventSource>()
  #dirtyLog: DirtyLog | undefined
  #statistics: Statistics | undefined
  #closing = false

  static {
    makeVm = (vm) => {
      const made = new Vm(ours, vm)
      made.#prepare()
      return made
    }
    observedOf = (vm) => {
      if (typeof vm !== 'object' || vm === null || !(#native in vm)) return undefined
      vm.#open()
      return { fd: vm.#native.fd, isClosing: () => vm.#closing }
    }
  }

  private constructor(key: symbol, vm: NativeVm) {
    checkOurs(key, 'a Vm', 'Kvm.createVm() or Vm.attach()')
    this.#native = vm
    // KVM_CAP_NR_MEMSLOTS, KVM_CAP_MAX_VCPUS, KVM_CAP_MAX_VCPU_ID; where there is no maximum, it is 4 (api.rst 4.7).
    const [memslots, vcpus, vcpuIds] = [10, 66, 128].map((capability) => this.checkExtension(capability)) as [number, number, number]
    this.limits = { memslots, vcpus: vcpus || 4, vcpuIds: vcpuIds || 4, runPageSize: vm.runPageSize }
    this.memslots = makeMemslots(vm, memslots)
  }

  #prepare(): void {
    // KVM keeps two areas of its own for real mode without unrestricted guest (api.rst 4.37, 4.47): below 4 GiB, where firmware lies.
    this.#set(KVM_SET_IDENTITY_MAP_ADDR, new Uint8Array(new BigUint64Array([0xfffb_c000n]).buffer))
    this.#set(KVM_SET_TSS_ADDR, 0xfffb_d000)
  }

  // Both are Intel's alone: elsewhere the kernel refuses them, and nothing is lost.
  #set(request: Request, argument: number | Uint8Array): void {
    const result = this.#native.ioctl(request.number, argument)
    if (result < 0 && !['EINVAL', 'ENOTTY', 'EEXIST', 'ENXIO'].includes(errnoName(result))) throw ioctlError(request.name, result, 'preparing the VM')
  }

  /** Whether close() was called. Any other use then throws `closed`. */
  get closed(): boolean {
    return this.#native.fd < 0
  }
  /** The open vCPUs, by id. */
  get vcpus(): ReadonlyMap<number, Vcpu> {
    return this.#vcpus
  }

  #open(): void {
    if (this.closed) throw new KvmError('closed', 'this VM is closed')
  }
  // For what close() ends: it calls listeners and handlers, who may still look at the VM, but add nothing to it.
  #openToMore(): void {
    this.#open()
    if (this.#closing) throw new KvmError('closed', 'this VM is being closed')
  }

  /**
   * A new vCPU: KVM_CREATE_VCPU.
   * @param id its APIC id; the next free one if absent. An id cannot be used twice, even after close
   * @throws KvmError `limit` when the host allows no more
   */
  createVcpu(id?: number): Vcpu {
    this.#openToMore()
    if (id !== undefined) return this.#createVcpu(checkInteger('id', id), false)
    return this.#createVcpu(this.#vcpus.size, true)
  }

  #createVcpu(id: number, orNext: boolean): Vcpu {
    const { vcpus, vcpuIds } = this.limits
    if (id >= vcpuIds || this.#vcpus.size >= vcpus)
      throw new KvmError('limit', `vCPU ${id}: this host allows ${vcpus} vCPUs a VM, with ids below ${vcpuIds}`, { vcpus, vcpuIds, argument: 'id' })
    const vcpu = making(() => this.#native.createVcpu(id))
    if (typeof vcpu !== 'number') return this.#hold(vcpu, id)
    // Another environment may have made it.
    const taken = errnoName(vcpu) === 'EEXIST'
    if (taken && orNext) return this.#createVcpu(id + 1, true)
    throw ioctlError('KVM_CREATE_VCPU', vcpu, `creating vCPU ${id}`, taken ? 'the id is taken; ids are not used again within a VM' : '')
  }

  #hold(vcpu: NativeVcpu, id: number): Vcpu {
    const made = makeVcpu({ native: vcpu, id, vm: this, runPageSize: this.limits.runPageSize, queues: this.#queues })
    this.#vcpus.set(id, made)
    return made
  }

  /**
   * The vCPU of that number, whichever environment created it. It stays open as long as one of them has not closed it.
   * @throws KvmError `argument` when there is none
   */
  vcpu(id: number): Vcpu {
    this.#openToMore()
    const known = this.#vcpus.get(checkInteger('id', id, 0, 2 ** 32 - 1))
    if (known && !known.closed) return known
    const vcpu = this.#native.findVcpu(id)
    if (typeof vcpu === 'number') throw new KvmError('argument', `this VM has no open vCPU ${id}`, { argument: 'id' })
    return this.#hold(vcpu, id)
  }

  /**
   * What another Worker of this process attaches the VM by: post it there. One token serves one attach(). It holds the VM, even when nothing else
   * does, until it is attached, the VM is closed by the environment that created it, or the environment that called share() ends.
   * @example
   * const { port1 } = new MessageChannel()
   * port1.postMessage(vm.share())
   */
  share(): VmToken {
    this.#open()
    const token = this.#native.share()
    if (typeof token === 'number') throw new KvmError('closed', `this VM cannot be shared: ${errnoName(token)}`)
    return { nodeKvmVm: token }
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
    const number = (token as Partial<VmToken> | null | undefined)?.nodeKvmVm
    if (typeof number !== 'bigint') throw argumentError('token', typeof token, 'what share() returned')
    const vm = native.attach(number)
    if (typeof vm !== 'number') return new Vm(ours, vm)
    if (errnoName(vm) === 'EBADF')
      throw new KvmError('closed', 'the VM of this token was closed, or the Worker that shared it ended, before it was attached')
    throw new KvmError('argument', 'token is of no VM (within one process), was used (each attach() takes a share() of its own), or its VM ended', {
      argument: 'token'
    })
  }

  /**
   * Memory that only the guest reaches, for memslots of this VM: KVM_CREATE_GUEST_MEMFD.
   * @throws KvmError `unavailable` on kernels and VM types without it
   */
  createGuestMemfd(options: GuestMemfdOptions): GuestMemfd {
    this.#open()
    return createGuestMemfd(this.#native, options)
  }

  /** The value of a KVM_CAP_ number for this VM. */
  checkExtension(capability: number): number {
    this.#open()
    checkInteger('capability', capability, 0, 2 ** 31 - 1)
    return checked(this.#native.ioctl(KVM_CHECK_EXTENSION.number, capability), KVM_CHECK_EXTENSION.name, `asking for capability ${capability}`)
  }

  /** Turns a capability on: KVM_ENABLE_CAP (api.rst 4.37 and 7). */
  enableCapability(capability: number, ...values: bigint[]): void {
    this.#open()
    if (values.length > 4) throw argumentError('values', values, 'at most 4')
    const args = [...values, 0n, 0n, 0n, 0n].slice(0, 4)
    const argument = new EnableCap({ cap: checkInteger('capability', capability, 0, 2 ** 31 - 1), args })
    checked(
      this.#native.ioctl(KVM_ENABLE_CAP.number, argument.bytes),
      KVM_ENABLE_CAP.name,
      `enabling capability ${capability}`,
      'the host may lack it'
    )
  }

  /**
   * Interrupt controllers in the kernel: two PICs, an IOAPIC and a local APIC for each vCPU (KVM_CREATE_IRQCHIP). Before the first vCPU.
   * From then on HLT waits for an interrupt inside run() instead of being an exit.
   */
  createIrqchip(): void {
    this.#open()
    createIrqchip(this.#native)
  }
  /**
   * The programmable interval timer in the kernel, at ports 0x40 to 0x43, on GSI 0 (KVM_CREATE_PIT2). After createIrqchip().
   * @param options `speaker`: port 0x61 too
   */
  createPit(options: { speaker?: boolean } = {}): void {
    this.#open()
    createPit(this.#native, options)
  }
  /** Raises or lowers a line of the interrupt controllers: KVM_IRQ_LINE. */
  setIrqLine(gsi: number, level: boolean): void {
    this.#open()
    setIrqLine(this.#native, gsi, level)
  }
  /** Sends a message-signalled interrupt: KVM_SIGNAL_MSI. False when no vCPU takes it. */
  signalMsi(message: MsiMessage): boolean {
    this.#open()
    return signalMsi(this.#native, message)
  }
  /** Replaces the whole table of where interrupts lead: KVM_SET_GSI_ROUTING. At first GSIs 0 to 23 are the PICs' and the IOAPIC's pins. */
  setGsiRouting(routes: readonly GsiRoute[]): void {
    this.#open()
    setGsiRouting(this.#native, routes)
  }
  /** An interrupt line that any thread raises without stopping the guest: KVM_IRQFD. */
  irqfd(options: IrqfdOptions): Irqfd {
    this.#openToMore()
    return this.#keep((onClose) => makeIrqfd(this.#native, options, onClose))
  }
  /** A place whose writes become events of the event loop instead of exits: KVM_IOEVENTFD. */
  ioeventfd(options: IoEventfdOptions): IoEventfd {
    this.#openToMore()
    return this.#keep((onClose) => makeIoEventfd(this.#native, options, onClose))
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
    this.#openToMore()
    return (this.#queues.writes ??= new Coalescing(this.#native)).add(range, handler)
  }

  /**
   * Begins to log which pages change, of all memslots: by the guest, and by this library.
   * @throws KvmError `in-use` while another log is open, `unavailable`, `ioctl` for a ring once there are vCPUs
   */
  dirtyLog(options: DirtyLogOptions = {}): DirtyLog {
    this.#openToMore()
    tableOf(this.memslots).refuseInTransaction()
    if (this.#dirtyLog) throw new KvmError('in-use', 'this VM has a dirty log; close it first')
    const log = makeDirtyLog(this.#native, tableOf(this.memslots), options, () => {
      this.#dirtyLog = undefined
    })
    return (this.#dirtyLog = log)
  }

  #keep<T extends EventSource>(make: (onClose: () => void) => T): T {
    const source = make(() => this.#sources.delete(source))
    this.#sources.add(source)
    return source
  }

  /** Counters of the VM, without privilege: KVM_GET_STATS_FD. Enumerated once; each `read()` asks the kernel. */
  get stats(): Statistics {
    this.#openToMore()
    return (this.#statistics ??= statisticsOf(this.#native))
  }

  /** A copy of guest memory, across memslots. */
  read(gpa: number, length: number): Uint8Array {
    const bytes = zeroed(checkInteger('length', length, 0, 2 ** 32))
    this.#eachPiece(gpa, length, (slot, offset, from, size) => slot.mapping.readInto(offset, bytes.subarray(from, from + size)))
    return bytes
  }

  /** Copies bytes into guest memory, across memslots; nothing is written unless all of it has a memslot. */
  write(gpa: number, bytes: Uint8Array): void {
    const { byteLength } = checkBytes('bytes', bytes)
    this.#eachPiece(gpa, byteLength, () => {})
    this.#eachPiece(gpa, byteLength, (slot, offset, from, size) => slot.mapping.write(offset, bytes.subarray(from, from + size)))
  }

  #eachPiece(
    gpa: number,
    length: number,
    visit: (slot: { mapping: import('../../memory/mapping.js').Mapping }, offset: number, from: number, size: number) => void
  ): void {
    this.#open()
    checkAddress('gpa', gpa)
    for (let done = 0; done < length; ) {
      const slot = this.memslots.lookup(gpa + done)
      if (!slot) throw new KvmError('no-memslot', `no memslot at gpa ${hex(gpa + done)}: nothing to read or write there`, { gpa: gpa + done })
      const within = gpa + done - slot.gpa
      const size = Math.min(length - done, slot.size - within)
      visit(slot, slot.offset + within, done, size)
      done += size
    }
  }

  /**
   * Closes the vCPUs and the VM; its memslots let go of their memory. Started vCPUs are stopped, and where this environment
   * created the VM, runs of other Workers end with a `closed` error, and its memslots are gone for them, too. Coalesced writes that wait
   * are delivered first. All of it is closed, also when something of it cannot be closed properly; that is thrown afterwards. A second call
   * does nothing.
   * @throws KvmError `state` inside a transaction of its memslots
   */
  close(): void {
    if (this.#closing) return
    tableOf(this.memslots).refuseInTransaction()
    this.#closing = true
    takeEach([
      ...[...this.#sources].map((source) => () => source.close()),
      () => this.#dirtyLog?.close(),
      ...[...this.#vcpus.values()].map((vcpu) => () => vcpu.close()),
      () => this.#queues.writes?.drain(),
      () => this.#statistics?.close(),
      () => this.#native.close(),
      () => tableOf(this.memslots).released()
    ])
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}
