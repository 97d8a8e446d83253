/** What waits to be delivered to a vCPU, and what is delivered to it. */
import { inspect } from 'node:util'
import { checkBoolean, checkInteger } from '../../abi/arguments.js'
import {
  KVM_MP_STATE_RUNNABLE,
  KVM_VCPUEVENT_VALID_NMI_PENDING,
  KVM_VCPUEVENT_VALID_SHADOW,
  KVM_VCPUEVENT_VALID_SMM
} from '../../abi/generated/constants.js'
import { KVM_GET_MP_STATE, KVM_GET_VCPU_EVENTS, KVM_INTERRUPT, KVM_NMI, KVM_SET_MP_STATE, KVM_SET_VCPU_EVENTS } from '../../abi/generated/requests.js'
import { kvm_interrupt, kvm_mp_state, kvm_vcpu_events } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Causes, VcpuHandle } from '../../abi/ioctls.js'
import type { Some } from '../../abi/struct.js'
import type { Runs } from './runs.js'

/** @internal */
export let makeEvents: (handle: VcpuHandle, runs: Runs) => VcpuEvents
/** @internal Drops what waits to be delivered, wakes the vCPU, and takes it out of system management mode. */
export let dropEvents: (events: VcpuEvents) => void

// What KVM_SET_VCPU_EVENTS writes beside exception, interrupt and NMI.
const droppedEvents = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM

const interruptCauses: Causes = {
  EEXIST: 'an interrupt waits to be delivered already',
  ENXIO: "the VM has interrupt controllers in the kernel, and delivers by them: the methods of the VM's interrupts"
}

/**
 * Interrupts, exceptions and other events of a vCPU: {@link Vcpu.events}.
 * @example
 * if (vcpu.events.readyForInterrupt) vcpu.events.interrupt(32)
 * else vcpu.events.requestInterruptWindow(true)
 */
export class VcpuEvents {
  readonly #handle: VcpuHandle
  readonly #runs: Runs

  static {
    makeEvents = (...given) => new VcpuEvents(ours, ...given)
    dropEvents = (events) => events.#drop()
  }

  private constructor(key: symbol, handle: VcpuHandle, runs: Runs) {
    checkOurs(key, 'a VcpuEvents', 'createVcpu() of a Vm')
    this.#handle = handle
    this.#runs = runs
  }

  /** What waits to be delivered, and what holds it up: KVM_GET_VCPU_EVENTS (api.rst 4.31). */
  get(): kvm_vcpu_events {
    return this.#handle.get(KVM_GET_VCPU_EVENTS, kvm_vcpu_events, 'reading its events')
  }
  /** Writes it, some fields or all: KVM_SET_VCPU_EVENTS (api.rst 4.32). `flags` says which of some fields count. */
  set(values: Some<typeof kvm_vcpu_events.fields>): void {
    this.#handle.set(KVM_SET_VCPU_EVENTS, kvm_vcpu_events, 'writing its events', values, () => this.get())
  }

  #drop(): void {
    if (this.getMpState() !== KVM_MP_STATE_RUNNABLE) this.setMpState(KVM_MP_STATE_RUNNABLE)
    const { flags } = this.get()
    this.#handle.set(KVM_SET_VCPU_EVENTS, kvm_vcpu_events, 'writing its events', { flags: flags & droppedEvents })
  }

  /** Whether it is runnable (0), halted (3), or in another state of KVM_GET_MP_STATE (api.rst 4.38). */
  getMpState(): number {
    return this.#handle.get(KVM_GET_MP_STATE, kvm_mp_state, 'reading its state').mp_state
  }
  /** Wakes or halts it: KVM_SET_MP_STATE. */
  setMpState(state: number): void {
    this.#handle.set(KVM_SET_MP_STATE, kvm_mp_state, 'writing its state', { mp_state: state })
  }

  /**
   * Delivers an external interrupt: KVM_INTERRUPT. It is for a VM without createIrqchip(), when {@link VcpuEvents.readyForInterrupt}.
   * @param vector 0 to 255
   */
  interrupt(vector: number): void {
    const { bytes } = new kvm_interrupt({ irq: checkInteger('vector', vector, 0, 255) })
    this.#handle.plain(KVM_INTERRUPT, `interrupting it by vector ${vector}`, bytes, interruptCauses)
  }
  /** Delivers a non-maskable interrupt: KVM_NMI. */
  nmi(): void {
    this.#handle.plain(KVM_NMI, 'interrupting it by an NMI')
  }

  /** Whether the last exit left the guest able to take an interrupt(). Where it did not, {@link requestInterruptWindow} tells when it is. */
  get readyForInterrupt(): boolean {
    return this.#runs.readyForInterrupt
  }
  /** Asks run() to come back with `irq-window-open` once the guest takes interrupts, until it is set to false. */
  requestInterruptWindow(wanted: boolean): void {
    this.#runs.requestInterruptWindow(checkBoolean('wanted', wanted))
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuEvents')
  }
}
