/** The model-specific registers of a vCPU. */
import { inspect } from 'node:util'
import { argumentError, checkList, hex } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { KVM_GET_MSRS, KVM_SET_MSRS } from '../../abi/generated/requests.js'
import { kvm_msr_entry } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Ioctl } from '../../abi/ioctl.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import { entryOf } from '../../abi/struct.js'

/** @internal */
export let makeMsrs: (handle: VcpuHandle) => VcpuMsrs

/**
 * The model-specific registers of a vCPU: {@link Vcpu.msrs}.
 * @example
 * const [efer] = vcpu.msrs.get([0xc000_0080])
 * vcpu.msrs.set(new Map([[0xc000_0080, efer ?? 0n]]))
 */
export class VcpuMsrs {
  readonly #handle: VcpuHandle

  static {
    makeMsrs = (handle) => new VcpuMsrs(ours, handle)
  }

  private constructor(key: symbol, handle: VcpuHandle) {
    checkOurs(key, 'a VcpuMsrs', 'createVcpu() of a Vm')
    this.#handle = handle
  }

  /**
   * Reads registers: KVM_GET_MSRS.
   * @param indices the numbers of the registers
   * @returns the values, in the same order
   */
  get(indices: Iterable<number>): bigint[] {
    const entries = checkList('indices', indices).map((index, place) => entryOf(kvm_msr_entry, `indices[${place}]`, { index }))
    return this.#each(KVM_GET_MSRS, entries, 'reading its MSRs').map(({ data }) => data)
  }
  /**
   * Writes registers in the given order: KVM_SET_MSRS. If one is refused, those before it are written.
   * @param values pairs of a register's number and its value
   */
  set(values: Iterable<readonly [index: number, data: bigint]>): void {
    const entries = checkList('values', values).map((pair, place) => {
      if (!Array.isArray(pair) || pair.length !== 2) throw argumentError(`values[${place}]`, pair, 'a pair of an index and a value')
      return entryOf(kvm_msr_entry, `values[${place}]`, { index: pair[0], data: pair[1] })
    })
    this.#each(KVM_SET_MSRS, entries, 'writing its MSRs')
  }

  // Both ioctls return how many registers they did. If it is fewer, the next one was refused (api.rst 4.18, 4.19).
  #each(ioctl: Ioctl, entries: readonly kvm_msr_entry[], asked: string) {
    const { done, entries: answered } = this.#handle.list(ioctl, kvm_msr_entry, entries, asked)
    const refused = entries[done]
    if (refused)
      throw new KvmError(
        'ioctl',
        `${this.#handle.name}: ${asked}: ${ioctl.name} stopped at entry ${done} of ${entries.length}: this vCPU lacks MSR ${hex(refused.index)}, or refuses the value`,
        { ioctl: ioctl.name, done, index: refused.index }
      )
    return answered
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuMsrs')
  }
}
