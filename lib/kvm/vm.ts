/** A machine: its memslots and vCPUs. */
import { checkAddress, checkBytes, checkInteger, hex } from '../abi/arguments.js'
import { checked, errnoName, ioctlError, KvmError } from '../abi/errors.js'
import { spteFormat } from '../abi/host.js'
import type { NativeVm } from '../abi/native.js'
import { KVM_CHECK_EXTENSION, KVM_ENABLE_CAP, KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR, type Request } from '../abi/requests.js'
import { EnableCap } from '../abi/structures.js'
import { GuestMemfd, type GuestMemfdOptions } from '../memory/guest-memfd.js'
import { Memslots } from '../memory/memslots.js'
import { Trace, type TraceOptions } from '../trace/trace.js'
import { readTables, type Subject, type Tables } from '../translation/tables.js'
import { type Translation, translateIn } from '../translation/translate.js'
import { Statistics } from './statistics.js'
import { Vcpu } from './vcpu.js'

/** What the host allows a VM. */
export interface VmLimits {
  memslots: number
  vcpus: number
  /** Ids lie below this. */
  vcpuIds: number
  /** Bytes of a vCPU's shared pages. */
  runPageSize: number
}

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
  #statistics: Statistics | undefined

  /** @internal */
  constructor(vm: NativeVm, limits: VmLimits) {
    this.#native = vm
    this.limits = limits
    this.memslots = new Memslots(vm, limits.memslots)
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

  /**
   * A new vCPU: KVM_CREATE_VCPU.
   * @param id its APIC id; the next free one if absent. An id cannot be used twice, even after close
   * @throws KvmError `limit` when the host allows no more
   */
  createVcpu(id = this.#vcpus.size): Vcpu {
    this.#open()
    checkInteger('id', id)
    const { vcpus, vcpuIds, runPageSize } = this.limits
    if (id >= vcpuIds || this.#vcpus.size >= vcpus)
      throw new KvmError('limit', `vCPU ${id}: this host allows ${vcpus} vCPUs a VM, with ids below ${vcpuIds}`, { vcpus, vcpuIds, argument: 'id' })
    const vcpu = this.#native.createVcpu(id, runPageSize)
    if (typeof vcpu === 'number')
      throw ioctlError(
        'KVM_CREATE_VCPU',
        vcpu,
        `creating vCPU ${id}`,
        errnoName(vcpu) === 'EEXIST' ? 'the id is taken; ids are not used again within a VM' : ''
      )
    const made = new Vcpu(vcpu, id, this, runPageSize)
    this.#vcpus.set(id, made)
    return made
  }

  /**
   * Memory that only the guest reaches, for memslots of this VM: KVM_CREATE_GUEST_MEMFD.
   * @throws KvmError `unavailable` on kernels and VM types without it
   */
  createGuestMemfd(options: GuestMemfdOptions): GuestMemfd {
    this.#open()
    return GuestMemfd.create(this.#native, options)
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
    const argument = new EnableCap({ cap: checkInteger('capability', capability, 0, 2 ** 31 - 1), args: [...values, 0n, 0n, 0n, 0n].slice(0, 4) })
    checked(
      this.#native.ioctl(KVM_ENABLE_CAP.number, argument.bytes),
      KVM_ENABLE_CAP.name,
      `enabling capability ${capability}`,
      'the host may lack it'
    )
  }

  /** Counters of the VM, without privilege: KVM_GET_STATS_FD. Enumerated once; each `read()` asks the kernel. */
  get stats(): Statistics {
    this.#open()
    return (this.#statistics ??= Statistics.of(this.#native))
  }

  /**
   * Watches what KVM's address translation does for this VM from now on: violations, second-stage changes, MMU-notifier calls. KVM's events
   * tell the process and the thread, not the VM: those of another VM of this process appear among them.
   * @throws KvmError `permission` without CAP_PERFMON or root, `unavailable` without tracefs
   */
  trace(options?: TraceOptions): Trace {
    this.#open()
    const counters = () => [this.stats, ...[...this.#vcpus.values()].filter(({ closed }) => !closed).map(({ stats }) => stats)]
    return Trace.of({ memslots: this.memslots, spteFormat: spteFormat(), processes: [process.pid], counters }, options)
  }

  #subject(): Subject {
    this.#open()
    return { pid: process.pid, fd: this.#native.fd, own: this.memslots }
  }

  /**
   * Where a GPA leads, by each of the three tables.
   * @throws KvmError `closed`, or `argument` for what is no address
   * @example
   * const { hva, hpa, secondStage, agrees } = vm.translate(0xa000)
   */
  translate(gpa: number): Translation {
    return translateIn(this.#subject(), gpa)
  }

  /**
   * All three tables, as columns.
   * @param range only the GPAs from `gpa` on, `size` bytes; everything if absent
   * @example
   * const { gpa, hpa, level, evidence } = vm.tables()
   */
  tables(range?: { gpa?: number; size?: number }): Tables {
    return readTables(this.#subject(), range)
  }

  /** A copy of guest memory, across memslots. */
  read(gpa: number, length: number): Uint8Array {
    const bytes = new Uint8Array(checkInteger('length', length, 0, 2 ** 32))
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
    visit: (slot: { mapping: import('../memory/mapping.js').Mapping }, offset: number, from: number, size: number) => void
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

  /** Closes the vCPUs and the VM; its memslots let go of their memory. A second call does nothing. */
  close(): void {
    if (this.closed) return
    for (const vcpu of this.#vcpus.values()) vcpu.close()
    this.#statistics?.close()
    this.#native.close()
    this.memslots.released()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}
