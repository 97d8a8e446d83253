/** The local APIC of a vCPU. */
import { inspect } from 'node:util'
import { argumentError, checkBytes } from '../../abi/arguments.js'
import { KVM_GET_LAPIC, KVM_SET_LAPIC } from '../../abi/generated/requests.js'
import { kvm_lapic_state } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Causes, VcpuHandle } from '../../abi/ioctls.js'

/** @internal */
export let makeLapic: (handle: VcpuHandle) => VcpuLapic

const withoutLapic = 'the VM has no interrupt controllers in the kernel; call createIrqchip() before the first vCPU is made'
// kvm_arch_vcpu_ioctl() refuses to read it for this reason only.
const readingCauses: Causes = { EINVAL: withoutLapic }

/**
 * The registers of a local APIC: {@link Vcpu.lapic}. The kernel has a local APIC for each vCPU if the VM has an irqchip.
 * @example
 * using machine = kvm.createVm()
 * machine.interrupts.createIrqchip()
 * const page = machine.createVcpu().lapic.get()
 */
export class VcpuLapic {
  readonly #handle: VcpuHandle

  static {
    makeLapic = (handle) => new VcpuLapic(ours, handle)
  }

  private constructor(key: symbol, handle: VcpuHandle) {
    checkOurs(key, 'a VcpuLapic', 'createVcpu() of a Vm')
    this.#handle = handle
  }

  /** Reads the 1024 bytes of the APIC's register page (Intel SDM volume 3, table 12-1): KVM_GET_LAPIC. */
  get(): Uint8Array {
    return this.#handle.get(KVM_GET_LAPIC, kvm_lapic_state, 'reading its local APIC', undefined, readingCauses).regs
  }
  /** Writes all 1024 bytes: KVM_SET_LAPIC. */
  set(regs: Uint8Array): void {
    if (checkBytes('regs', regs).byteLength !== kvm_lapic_state.size) throw argumentError('regs', regs, `${kvm_lapic_state.size} bytes`)
    const hasLapic = () => this.#handle.send(KVM_GET_LAPIC, new kvm_lapic_state().bytes) >= 0
    this.#handle.set(KVM_SET_LAPIC, kvm_lapic_state, 'writing its local APIC', { regs }, undefined, {
      EINVAL: () => (hasLapic() ? undefined : withoutLapic)
    })
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuLapic')
  }
}
