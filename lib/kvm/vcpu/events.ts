/** The events of a vCPU: those that wait to be delivered, and calls that deliver one. */
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
/** @internal Drops the events that wait to be delivered, wakes the vCPU, and takes it out of system management mode. */
export let dropEvents: (events: VcpuEvents) => void

// The parts that KVM_SET_VCPU_EVENTS writes besides exception, interrupt and NMI.
const droppedEvents = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM

const interruptCauses: Causes = {
  EEXIST: 'another interrupt already waits to be delivered',
  ENXIO: 'the VM has interrupt controllers in the kernel, which deliver its interrupts: use the methods of vm.interrupts'
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

  /** Reads the events that wait to be delivered, and what delays them: KVM_GET_VCPU_EVENTS (api.rst 4.31). */
  get(): kvm_vcpu_events {
    return this.#handle.get(KVM_GET_VCPU_EVENTS, kvm_vcpu_events, 'reading its events')
  }
  /** Writes some or all fields of the events: KVM_SET_VCPU_EVENTS (api.rst 4.32). `flags` says which of the optional fields count. */
  set(values: Some<typeof kvm_vcpu_events.fields>): void {
    this.#handle.set(KVM_SET_VCPU_EVENTS, kvm_vcpu_events, 'writing its events', values, () => this.get())
  }

  #drop(): void {
    if (this.getMpState() !== KVM_MP_STATE_RUNNABLE) this.setMpState(KVM_MP_STATE_RUNNABLE)
    const { flags } = this.get()
    this.#handle.set(KVM_SET_VCPU_EVENTS, kvm_vcpu_events, 'writing its events', { flags: flags & droppedEvents })
  }

  /** Returns whether the vCPU is runnable (0), halted (3), or in another state of KVM_GET_MP_STATE (api.rst 4.38). */
  getMpState(): number {
    return this.#handle.get(KVM_GET_MP_STATE, kvm_mp_state, 'reading its state').mp_state
  }
  /** Wakes or halts the vCPU: KVM_SET_MP_STATE. */
  setMpState(state: number): void {
    this.#handle.set(KVM_SET_MP_STATE, kvm_mp_state, 'writing its state', { mp_state: state })
  }

  /**
   * Delivers an external interrupt: KVM_INTERRUPT. It is for a VM without createIrqchip(), while {@link VcpuEvents.readyForInterrupt} is true.
   * @param vector from 0 to 255
   */
  interrupt(vector: number): void {
    const { bytes } = new kvm_interrupt({ irq: checkInteger('vector', vector, 0, 255) })
    this.#handle.plain(KVM_INTERRUPT, `interrupting it by vector ${vector}`, bytes, interruptCauses)
  }
  /** Delivers a non-maskable interrupt: KVM_NMI. */
  nmi(): void {
    this.#handle.plain(KVM_NMI, 'interrupting it by an NMI')
  }

  /** Whether the guest could take an interrupt() at the last exit. If not, {@link requestInterruptWindow} makes run() return when it can. */
  get readyForInterrupt(): boolean {
    return this.#runs.readyForInterrupt
  }
  /** Makes run() return with `irq-window-open` as soon as the guest takes interrupts, until it is set to false. */
  requestInterruptWindow(wanted: boolean): void {
    this.#runs.requestInterruptWindow(checkBoolean('wanted', wanted))
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuEvents')
  }
}
