/** The vCPUs of a VM. */
import { checkInteger } from '../../abi/arguments.js'
import { errnoName, KvmError } from '../../abi/errors.js'
import { making } from '../../abi/exhausted.js'
import { KVM_CREATE_VCPU } from '../../abi/generated/requests.js'
import type { Causes, Handle } from '../../abi/ioctls.js'
import type { NativeVcpu, NativeVm } from '../../abi/native.js'
import type { VcpuHost, WriteQueues } from '../vcpu/host.js'
import { makeVcpu, type Vcpu } from '../vcpu/vcpu.js'
import type { VmLimits } from './limits.js'

const causes: Causes = {
  EEXIST: 'the id is taken; a VM never uses an id again',
  // The add-on gives this before it asks the kernel.
  ENOSPC: 'no real-time signal is free, and the library needs one to end runs'
}

/** @internal The vCPUs that this environment created or found, by id. */
export class Vcpus {
  readonly #native: NativeVm
  readonly #handle: Handle
  readonly #limits: VmLimits
  readonly #vm: VcpuHost
  readonly #queues: WriteQueues
  readonly #known = new Map<number, Vcpu>()

  constructor(native: NativeVm, handle: Handle, limits: VmLimits, vm: VcpuHost, queues: WriteQueues) {
    this.#native = native
    this.#handle = handle
    this.#limits = limits
    this.#vm = vm
    this.#queues = queues
  }

  get known(): ReadonlyMap<number, Vcpu> {
    return this.#known
  }

  /** @param id if absent, the next free one */
  create(id?: number): Vcpu {
    return id === undefined ? this.#create(this.#known.size, true) : this.#create(checkInteger('id', id), false)
  }

  #create(id: number, orNext: boolean): Vcpu {
    const { vcpus, vcpuIds } = this.#limits
    if (id >= vcpuIds || this.#known.size >= vcpus)
      throw new KvmError('limit', `vCPU ${id}: this host allows ${vcpus} vCPUs a VM, with ids below ${vcpuIds}`, { vcpus, vcpuIds, argument: 'id' })
    const vcpu = making(() => this.#native.createVcpu(id))
    if (typeof vcpu !== 'number') return this.#hold(vcpu, id)
    // Another environment may have created it.
    if (errnoName(vcpu) === 'EEXIST' && orNext) return this.#create(id + 1, true)
    throw this.#handle.refused(KVM_CREATE_VCPU, vcpu, `creating vCPU ${id}`, causes)
  }

  #hold(native: NativeVcpu, id: number): Vcpu {
    const made = makeVcpu({ native, id, vm: this.#vm, runPageSize: this.#limits.runPageSize, queues: this.#queues })
    this.#known.set(id, made)
    return made
  }

  /** @throws KvmError `argument` if no environment has it open */
  find(id: number): Vcpu {
    const known = this.#known.get(checkInteger('id', id, 0, 2 ** 32 - 1))
    if (known && !known.closed) return known
    const vcpu = this.#native.findVcpu(id)
    if (typeof vcpu === 'number') throw new KvmError('argument', `this VM has no open vCPU ${id}`, { argument: 'id' })
    return this.#hold(vcpu, id)
  }
}
