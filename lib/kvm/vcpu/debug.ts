/** A debugger's view of a vCPU. */
import { inspect } from 'node:util'
import { KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_SET_GUEST_DEBUG, KVM_TRANSLATE } from '../../abi/generated/requests.js'
import { kvm_guest_debug, kvm_translation } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import type { Some } from '../../abi/struct.js'
import { DebugRegisters } from '../../x86/registers.js'

/** @internal */
export let makeDebug: (handle: VcpuHandle) => VcpuDebug

/**
 * Breakpoints, single steps and the guest's own page tables: {@link Vcpu.debug}.
 * @example
 * vcpu.debug.translate(0x1000n).physical_address
 */
export class VcpuDebug {
  readonly #handle: VcpuHandle

  static {
    makeDebug = (handle) => new VcpuDebug(ours, handle)
  }

  private constructor(key: symbol, handle: VcpuHandle) {
    checkOurs(key, 'a VcpuDebug', 'createVcpu() of a Vm')
    this.#handle = handle
  }

  /** Reads DR0 to DR3, DR6 and DR7: KVM_GET_DEBUGREGS. */
  getRegisters(): DebugRegisters {
    return this.#handle.get(KVM_GET_DEBUGREGS, DebugRegisters, 'reading its debug registers')
  }
  /** Writes some or all debug registers: KVM_SET_DEBUGREGS. */
  setRegisters(values: Some<typeof DebugRegisters.fields>): void {
    this.#handle.set(KVM_SET_DEBUGREGS, DebugRegisters, 'writing its debug registers', values, () => this.getRegisters())
  }

  /** Asks for exits at single steps and breakpoints: KVM_SET_GUEST_DEBUG (api.rst 4.36). */
  set(values: Some<typeof kvm_guest_debug.fields>): void {
    this.#handle.set(KVM_SET_GUEST_DEBUG, kvm_guest_debug, 'setting what is debugged', values)
  }

  /** Translates a linear address by the guest's own page tables, from guest-virtual to guest-physical: KVM_TRANSLATE. */
  translate(linear: bigint): kvm_translation {
    const value = new kvm_translation()
    value.linear_address = linear
    this.#handle.plain(KVM_TRANSLATE, 'translating a linear address', value.bytes)
    return value
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuDebug')
  }
}
