/** A vCPU's registers and what else is read and written by ioctl while the guest is out. */
import { argumentError, checkBytes, checkInteger, checkList } from '../../abi/arguments.js'
import { checked, errnoName, ioctlError, KvmError } from '../../abi/errors.js'
import { checkOurs } from '../../abi/internal.js'
import { type NativeVcpu, native } from '../../abi/native.js'
import * as requests from '../../abi/requests.js'
import type { Fields, Some, StructInstance, StructType } from '../../abi/struct.js'
import {
  CpuidEntry,
  DebugRegisters,
  Fpu,
  GuestDebug,
  Interrupt,
  LapicState,
  MpState,
  MsrEntry,
  Registers,
  SpecialRegisters,
  Translation,
  VcpuEvents
} from '../../abi/structures.js'
import { ioctlVcpu } from '../../abi/vcpu-calls.js'

// KVM_VCPUEVENT_VALID_ NMI_PENDING, SHADOW and SMM: what KVM_SET_VCPU_EVENTS writes beside exception, interrupt and NMI.
const droppedEvents = 1 | 4 | 8

/** @internal what its CPUID answers now: KVM_GET_CPUID2 */
export let cpuidOf: (vcpu: VcpuRegisters) => CpuidEntry[]
/** @internal drops what waits to be delivered, wakes it, and takes it out of system management mode */
export let dropEvents: (vcpu: VcpuRegisters) => void
/** @internal */
export function checkOpen(vcpu: VcpuRegisters): void {
  if (vcpu.closed) throw new KvmError('closed', `vCPU ${vcpu.id} is closed`)
}

/** The part of {@link Vcpu} that is its registers. While the guest runs on another thread, each of these is refused with `busy`. */
export abstract class VcpuRegisters {
  /** Its number: the APIC id. */
  readonly id: number
  readonly #native: NativeVcpu
  // By which ioctlVcpu() knows it.
  readonly #number: number

  static {
    cpuidOf = (vcpu) => vcpu.#cpuid()
    dropEvents = (vcpu) => vcpu.#dropEvents()
  }

  /** Made by {@link Vm.createVcpu} alone. */
  protected constructor(key: symbol, vcpu: unknown, id: number, number: number) {
    checkOurs(key, 'a Vcpu', 'createVcpu() or vcpu() of a Vm')
    this.#native = vcpu as NativeVcpu
    this.#number = number
    this.id = id
  }

  /** Whether close() was called. Any other use then throws `closed`. */
  get closed(): boolean {
    return this.#native.fd < 0
  }

  /**
   * Which signals are blocked while this vCPU is in KVM_RUN, in place of the thread's own mask: KVM_SET_SIGNAL_MASK (api.rst 4.17). The signal
   * by which kick() and time limits work stays open, whatever is asked.
   * @param blocked numbers of signal(7)
   */
  setSignalMask(blocked: Iterable<number>): void {
    checkOpen(this)
    let set = 0n
    for (const signal of checkList('blocked', blocked)) set |= 1n << BigInt(checkInteger('blocked', signal, 1, 64) - 1)
    const mask = new DataView(new ArrayBuffer(12))
    mask.setUint32(0, 8, true)
    mask.setBigUint64(4, set & ~(1n << BigInt(native.kickSignal() - 1)), true)
    const result = this.#native.ioctlCounted(requests.KVM_SET_SIGNAL_MASK.number, new Uint8Array(mask.buffer))
    if (result < 0) this.#refused(result, requests.KVM_SET_SIGNAL_MASK, 'setting the signal mask of')
  }

  #get<F extends Fields>(request: requests.Request, type: StructType<F>, value = new type()): StructInstance<F> {
    if (value?.constructor !== type) throw argumentError('into', value, `an instance for ${type.structName}`)
    const result = ioctlVcpu(this.#number, request.number, value.bytes)
    if (result < 0) this.#refused(result, request, 'reading')
    return value
  }

  #set<F extends Fields>(request: requests.Request, type: StructType<F>, values: Some<F>, current?: () => StructInstance<F>): void {
    let whole = values as StructInstance<F>
    if (values?.constructor !== type) {
      whole = current ? current() : new type()
      type.assign(whole, type.structName, values)
    }
    const result = ioctlVcpu(this.#number, request.number, whole.bytes)
    if (result < 0) this.#refused(result, request, 'writing', 'a field holds a value that this processor does not allow')
  }

  // Asked only after a failure: on the way there each call into the add-on would cost as much as the check is worth.
  #refused(result: number, request: requests.Request, doing: string, advice = ''): never {
    checkOpen(this)
    if (errnoName(result) === 'EBUSY')
      throw new KvmError('busy', `${doing} vCPU ${this.id} while it runs would wait for the guest; await pause(), or kick() it out, first`, {
        ioctl: request.name
      })
    throw ioctlError(request.name, result, `${doing} vCPU ${this.id}`, advice)
  }

  /**
   * General-purpose registers, RIP and RFLAGS, as bigints: KVM_GET_REGS.
   * @param into a Registers to fill again instead of a new one, for loops
   */
  getRegisters(into?: Registers): Registers {
    return this.#get(requests.KVM_GET_REGS, Registers, into)
  }
  /** Writes registers: those of a getRegisters() whole, or some by name and the others kept. */
  setRegisters(values: Some<typeof Registers.fields>): void {
    this.#set(requests.KVM_SET_REGS, Registers, values, () => this.getRegisters())
  }
  /** Segments, descriptor tables and control registers: KVM_GET_SREGS. */
  getSpecialRegisters(into?: SpecialRegisters): SpecialRegisters {
    return this.#get(requests.KVM_GET_SREGS, SpecialRegisters, into)
  }
  /** Writes segments and control registers: those of a getSpecialRegisters() whole, or some by name (KVM_SET_SREGS).
   * @throws KvmError `ioctl` with EINVAL for a state no processor allows */
  setSpecialRegisters(values: Some<typeof SpecialRegisters.fields>): void {
    this.#set(requests.KVM_SET_SREGS, SpecialRegisters, values, () => this.getSpecialRegisters())
  }
  /** x87 and SSE state: KVM_GET_FPU. */
  getFpu() {
    return this.#get(requests.KVM_GET_FPU, Fpu)
  }
  /** Writes x87 and SSE state, some fields or all: KVM_SET_FPU. */
  setFpu(values: Some<typeof Fpu.fields>): void {
    this.#set(requests.KVM_SET_FPU, Fpu, values, () => this.getFpu())
  }
  /** DR0 to DR3, DR6 and DR7: KVM_GET_DEBUGREGS. */
  getDebugRegisters() {
    return this.#get(requests.KVM_GET_DEBUGREGS, DebugRegisters)
  }
  /** Writes debug registers, some fields or all: KVM_SET_DEBUGREGS. */
  setDebugRegisters(values: Some<typeof DebugRegisters.fields>): void {
    this.#set(requests.KVM_SET_DEBUGREGS, DebugRegisters, values, () => this.getDebugRegisters())
  }
  /** 0 runnable, 3 halted, ...: KVM_GET_MP_STATE. */
  get mpState(): number {
    return this.#get(requests.KVM_GET_MP_STATE, MpState).mp_state
  }
  /** Wakes or halts the vCPU: KVM_SET_MP_STATE. */
  set mpState(state: number) {
    this.#set(requests.KVM_SET_MP_STATE, MpState, { mp_state: state })
  }
  /** Single steps and breakpoints: KVM_SET_GUEST_DEBUG. */
  setGuestDebug(values: Some<typeof GuestDebug.fields>): void {
    this.#set(requests.KVM_SET_GUEST_DEBUG, GuestDebug, values)
  }
  /** The guest's own page tables: guest-virtual to guest-physical (KVM_TRANSLATE). */
  translateLinear(linear: bigint) {
    if (typeof linear !== 'bigint') throw argumentError('linear', linear, 'a bigint')
    checkOpen(this)
    const value = new Translation({ linear_address: linear })
    const result = this.#native.ioctl(requests.KVM_TRANSLATE.number, value.bytes)
    if (result < 0) this.#refused(result, requests.KVM_TRANSLATE, 'translating on')
    return value
  }

  /**
   * What the guest's CPUID answers: KVM_SET_CPUID2. The kernel takes it before the first run, and later only what it has already.
   * @param entries entries, or their fields
   */
  setCpuid(entries: readonly Some<typeof CpuidEntry.fields>[]): void {
    const list = checkList('entries', entries).map((entry, place) => entryOf(CpuidEntry, `entries[${place}]`, entry))
    this.#counted(requests.KVM_SET_CPUID2, list, CpuidEntry.size)
  }
  // Without a count: kernels before 6.9 leave that as it was, and the rest zeros.
  #cpuid(): CpuidEntry[] {
    // KVM_MAX_CPUID_ENTRIES of arch/x86/include/asm/kvm_host.h.
    const room = Array.from({ length: 256 }, () => new CpuidEntry())
    const memory = this.#counted(requests.KVM_GET_CPUID2, room, CpuidEntry.size)
    const entries = room.map((_, place) => CpuidEntry.over(memory.subarray(8 + place * CpuidEntry.size)))
    return entries.filter(({ bytes }) => bytes.some((byte) => byte !== 0))
  }
  #dropEvents(): void {
    if (this.mpState !== 0) this.mpState = 0
    const { flags } = this.#get(requests.KVM_GET_VCPU_EVENTS, VcpuEvents)
    this.#set(requests.KVM_SET_VCPU_EVENTS, VcpuEvents, { flags: flags & droppedEvents })
  }
  /** Reads model-specific registers: KVM_GET_MSRS. */
  getMsrs(indices: readonly number[]): bigint[] {
    const list = checkList('indices', indices).map((index, place) => entryOf(MsrEntry, `indices[${place}]`, { index }))
    const memory = this.#counted(requests.KVM_GET_MSRS, list, MsrEntry.size, list.length)
    return list.map((_, place) => MsrEntry.over(memory.subarray(8 + place * MsrEntry.size)).data)
  }
  /** Writes model-specific registers: KVM_SET_MSRS. */
  setMsrs(values: ReadonlyMap<number, bigint>): void {
    const list = checkList('values', values).map((pair, place) => {
      if (!Array.isArray(pair)) throw argumentError(`values[${place}]`, pair, 'an index and a value')
      return entryOf(MsrEntry, `values[${place}]`, { index: pair[0], data: pair[1] })
    })
    this.#counted(requests.KVM_SET_MSRS, list, MsrEntry.size, list.length)
  }

  // KVM_GET_MSRS and KVM_SET_MSRS return how many they did: fewer means that the next one was refused.
  #counted(request: requests.Request, entries: readonly { bytes: Uint8Array }[], entrySize: number, wanted = 0): Uint8Array {
    checkOpen(this)
    const memory = new Uint8Array(8 + entries.length * entrySize)
    new DataView(memory.buffer).setUint32(0, entries.length, true)
    entries.forEach((entry, place) => memory.set(entry.bytes, 8 + place * entrySize))
    const done = this.#native.ioctlCounted(request.number, memory)
    if (done < 0) this.#refused(done, request, 'with a list for')
    if (done < wanted)
      throw new KvmError('ioctl', `${request.name} stopped at entry ${done} of ${wanted}: this vCPU does not have that register`, {
        ioctl: request.name,
        done
      })
    return memory
  }

  /**
   * Delivers an external interrupt: KVM_INTERRUPT. For a VM without createIrqchip(), when {@link Vcpu.readyForInterrupt}.
   * @param vector 0 to 255
   */
  interrupt(vector: number): void {
    const { bytes } = new Interrupt({ irq: checkInteger('vector', vector, 0, 255) })
    const result = ioctlVcpu(this.#number, requests.KVM_INTERRUPT.number, bytes)
    if (result < 0)
      this.#refused(result, requests.KVM_INTERRUPT, 'interrupting', 'EEXIST: one waits already; ENXIO: the controllers are in the kernel')
  }
  /** Delivers a non-maskable interrupt: KVM_NMI. */
  nmi(): void {
    checkOpen(this)
    checked(this.#native.ioctl(requests.KVM_NMI.number), requests.KVM_NMI.name, `interrupting vCPU ${this.id}`)
  }
  /** The local APIC's registers, 1024 bytes as they lie in its page: KVM_GET_LAPIC. Needs createIrqchip(). */
  getLapic(): Uint8Array {
    return this.#get(requests.KVM_GET_LAPIC, LapicState).regs
  }
  /** Writes the local APIC's registers: KVM_SET_LAPIC. */
  setLapic(regs: Uint8Array): void {
    if (checkBytes('regs', regs).byteLength !== LapicState.size) throw argumentError('regs', regs.byteLength, `${LapicState.size} bytes`)
    this.#set(requests.KVM_SET_LAPIC, LapicState, { regs })
  }
}

function entryOf<F extends Fields>(type: StructType<F>, name: string, values: Some<F>): StructInstance<F> {
  const entry = new type()
  type.assign(entry, name, values)
  return entry
}
