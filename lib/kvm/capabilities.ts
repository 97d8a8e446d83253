/** The capabilities of KVM: their names, their values on a host, and the call that turns one on. */
import { inspect } from 'node:util'
import { argumentError, checkInteger } from '../abi/arguments.js'
import { type CapabilityName, capabilities } from '../abi/generated/capabilities.js'
import { KVM_CHECK_EXTENSION, KVM_ENABLE_CAP } from '../abi/generated/requests.js'
import { kvm_enable_cap } from '../abi/generated/structures.js'
import { checkOurs, fixParent, ours } from '../abi/internal.js'
import type { Handle } from '../abi/ioctls.js'

function numberOf(capability: number | CapabilityName): number {
  if (typeof capability !== 'string') return checkInteger('capability', capability, 0, 2 ** 31 - 1)
  if (!Object.hasOwn(capabilities, capability))
    throw argumentError('capability', capability, "the name of a KVM_CAP_ without that prefix ('IRQCHIP')")
  return capabilities[capability]
}

/** @internal */
export let makeCapabilities: (handle: Handle) => Capabilities
/** @internal */
export let makeVmCapabilities: (handle: Handle) => VmCapabilities

/**
 * The features of a host: {@link Kvm.capabilities}.
 * @example
 * kvm.capabilities.check('DIRTY_LOG_RING')   // 0 if the host lacks it
 */
export class Capabilities {
  readonly #handle: Handle

  static {
    makeCapabilities = (handle) => new Capabilities(ours, handle)
  }

  /** @internal */
  protected constructor(key: symbol, handle: Handle) {
    checkOurs(key, 'a Capabilities', 'open() of Kvm')
    this.#handle = handle
  }

  /**
   * Returns the value of a capability: KVM_CHECK_EXTENSION (api.rst 4.4). It is 0 if the host, or this type of VM, lacks the capability.
   * @param capability a name in {@link capabilities}, or the number of a KVM_CAP_
   */
  check(capability: number | CapabilityName): number {
    const number = numberOf(capability)
    return this.#handle.plain(KVM_CHECK_EXTENSION, `asking for the capability ${capability}`, number)
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('Capabilities')
  }
}

/** The features of a VM, which can be turned on: {@link Vm.capabilities}. */
export class VmCapabilities extends Capabilities {
  readonly #handle: Handle

  static {
    fixParent(VmCapabilities)
    makeVmCapabilities = (handle) => new VmCapabilities(ours, handle)
  }

  private constructor(key: symbol, handle: Handle) {
    super(key, handle)
    this.#handle = handle
  }

  /**
   * Turns a capability on: KVM_ENABLE_CAP (api.rst 4.37 and 7).
   * @param values the capability's arguments, at most four; each capability defines their meaning
   */
  enable(capability: number | CapabilityName, ...values: bigint[]): void {
    if (values.length > 4) throw argumentError('values', values, 'at most 4')
    const args = [...values, 0n, 0n, 0n, 0n].slice(0, 4)
    const { bytes } = new kvm_enable_cap({ cap: numberOf(capability), args })
    this.#handle.plain(KVM_ENABLE_CAP, `enabling the capability ${capability}`, bytes, {
      EINVAL: () => (this.check(capability) === 0 ? 'this VM lacks it' : undefined)
    })
  }

  /** What console.log() shows. */
  override [inspect.custom](): string {
    return this.#handle.shown('VmCapabilities')
  }
}
