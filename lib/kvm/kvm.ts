/** The system descriptor: /dev/kvm. */
import { inspect } from 'node:util'
import { argumentError, checkInteger } from '../abi/arguments.js'
import { errnoName, exhaustion, ioctlError, KvmError } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { KVM_CREATE_VM, KVM_GET_API_VERSION, KVM_GET_SUPPORTED_CPUID } from '../abi/generated/requests.js'
import { checkOurs, ours } from '../abi/internal.js'
import { Handle } from '../abi/ioctls.js'
import { type NativeKvm, native } from '../abi/native.js'
import { CpuidEntry } from '../x86/cpuid.js'
import { type Capabilities, makeCapabilities } from './capabilities.js'
import { makeVm, type Vm } from './vm/vm.js'

const openAdvice: Record<string, string> = {
  ENOENT: 'KVM is not loaded, or this container was not given the device: node-kvm doctor finds out which, and says what to do',
  EACCES: 'its owner, group and mode do not let this user open it: node-kvm doctor names the command that gives access',
  EPERM: 'the container or sandbox does not pass the device on: node-kvm doctor says how to make it',
  ENODEV: 'KVM is not loaded: node-kvm doctor says why',
  ENXIO: 'KVM is not loaded: node-kvm doctor says why'
}

/**
 * KVM on this host, through /dev/kvm.
 * @example
 * using kvm = Kvm.open()
 * using vm = kvm.createVm()
 */
export class Kvm implements Disposable {
  readonly capabilities: Capabilities
  readonly #native: NativeKvm
  readonly #handle: Handle

  private constructor(key: symbol, system: NativeKvm) {
    checkOurs(key, 'a Kvm', 'Kvm.open()')
    this.#native = system
    this.#handle = new Handle(system, 'this Kvm')
    this.capabilities = makeCapabilities(this.#handle)
  }

  /**
   * Opens the device.
   * @throws KvmError `unavailable` or `permission`, with advice on how to get access; `node-kvm doctor` says more
   */
  static open(path = '/dev/kvm'): Kvm {
    if (typeof path !== 'string') throw argumentError('path', path, 'a string')
    const system = making(() => native.open(path, true))
    if (typeof system === 'number') {
      const errno = errnoName(system)
      const exhausted = exhaustion(`opening ${path}`, system, { path })
      if (exhausted) throw exhausted
      const code = errno === 'EACCES' || errno === 'EPERM' ? 'permission' : 'unavailable'
      throw new KvmError(code, `opening ${path}: ${errno}; ${openAdvice[errno] ?? 'see node-kvm doctor'}`, { errno, path })
    }
    const version = system.ioctl(KVM_GET_API_VERSION.number)
    if (version !== 12) {
      system.close()
      if (version < 0 && errnoName(version) !== 'ENOTTY') throw ioctlError(KVM_GET_API_VERSION.name, version, `opening ${path}`, '', { path })
      throw new KvmError('unavailable', `${path} does not speak version 12 of the KVM API (KVM_GET_API_VERSION gave ${version}); is it KVM?`, {
        path
      })
    }
    return new Kvm(ours, system)
  }

  /** Whether close() was called. Every other call then throws `closed`. */
  get closed(): boolean {
    return this.#handle.closed
  }

  /** Returns the CPUID that the host can give a guest: KVM_GET_SUPPORTED_CPUID. */
  supportedCpuid(): CpuidEntry[] {
    return this.#handle.whole(KVM_GET_SUPPORTED_CPUID, CpuidEntry, 'asking for the supported CPUID')
  }

  /**
   * Creates a machine without memory and vCPUs: KVM_CREATE_VM. It stays open when this Kvm is closed.
   * @param type KVM_VM_TYPE; 0 except for confidential guests
   */
  createVm(type = 0): Vm {
    checkInteger('type', type)
    const vm = making(() => this.#native.createVm(type))
    if (typeof vm === 'number') throw this.#handle.refused(KVM_CREATE_VM, vm, `creating a VM of type ${type}`)
    try {
      return makeVm(vm)
    } catch (error) {
      vm.close()
      throw error
    }
  }

  /** Closes the descriptor. A second call does nothing. */
  close(): void {
    this.#native.close()
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('Kvm', {})
  }
}
