/** The registers of a vCPU, through ioctls. */
import { inspect } from 'node:util'
import { KVM_GET_FPU, KVM_GET_REGS, KVM_GET_SREGS, KVM_SET_FPU, KVM_SET_REGS, KVM_SET_SREGS } from '../../abi/generated/requests.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import type { Some } from '../../abi/struct.js'
import { Fpu, Registers, SpecialRegisters } from '../../x86/registers.js'

/** @internal */
export let makeRegisters: (handle: VcpuHandle) => VcpuRegisters

/**
 * The registers of a vCPU: {@link Vcpu.registers}. While the guest runs on another thread, every call is refused with `busy`.
 * @example
 * const { rip } = vcpu.registers.get()
 * vcpu.registers.set({ rip: rip + 1n })
 */
export class VcpuRegisters {
  readonly #handle: VcpuHandle

  static {
    makeRegisters = (handle) => new VcpuRegisters(ours, handle)
  }

  private constructor(key: symbol, handle: VcpuHandle) {
    checkOurs(key, 'a VcpuRegisters', 'createVcpu() of a Vm')
    this.#handle = handle
  }

  /**
   * Reads general-purpose registers, RIP and RFLAGS, as bigints: KVM_GET_REGS.
   * @param into a Registers to fill again instead of making a new one, for loops
   */
  get(into?: Registers): Registers {
    return this.#handle.get(KVM_GET_REGS, Registers, 'reading its registers', into)
  }
  /** Writes registers: all of an object that get() returned, or some by name; the others keep their values (KVM_SET_REGS). */
  set(values: Some<typeof Registers.fields>): void {
    this.#handle.set(KVM_SET_REGS, Registers, 'writing its registers', values, () => this.get())
  }

  /**
   * Reads segments, descriptor tables and control registers: KVM_GET_SREGS.
   * @param into a SpecialRegisters to fill again instead of making a new one
   */
  getSpecial(into?: SpecialRegisters): SpecialRegisters {
    return this.#handle.get(KVM_GET_SREGS, SpecialRegisters, 'reading its special registers', into)
  }
  /**
   * Writes segments and control registers: all of an object that getSpecial() returned, or some by name (KVM_SET_SREGS).
   * @throws KvmError `ioctl` with EINVAL for a state that no processor allows
   */
  setSpecial(values: Some<typeof SpecialRegisters.fields>): void {
    this.#handle.set(KVM_SET_SREGS, SpecialRegisters, 'writing its special registers', values, () => this.getSpecial())
  }

  /** Reads the state of the x87 and SSE units: KVM_GET_FPU. */
  getFpu(): Fpu {
    return this.#handle.get(KVM_GET_FPU, Fpu, 'reading its FPU')
  }
  /** Writes some or all fields of the x87 and SSE units: KVM_SET_FPU. */
  setFpu(values: Some<typeof Fpu.fields>): void {
    this.#handle.set(KVM_SET_FPU, Fpu, 'writing its FPU', values, () => this.getFpu())
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuRegisters')
  }
}
