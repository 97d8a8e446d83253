/** The answers of a vCPU's CPUID instruction. */
import { inspect } from 'node:util'
import { checkList } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { KVM_GET_CPUID2, KVM_SET_CPUID2 } from '../../abi/generated/requests.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import { entryOf, type Some } from '../../abi/struct.js'
import { CpuidEntry, hasLongMode } from '../../x86/cpuid.js'

/** @internal */
export let makeCpuid: (handle: VcpuHandle) => VcpuCpuid
/** @internal Sets CPUID if nobody has set it. If long mode is needed, it checks that the CPUID has long mode. */
export let prepareCpuid: (cpuid: VcpuCpuid, entries: readonly CpuidEntry[], longMode: boolean) => void

// KVM_MAX_CPUID_ENTRIES of arch/x86/include/asm/kvm_host.h.
const mostEntries = 256

/**
 * The answers of the guest's CPUID instruction: {@link Vcpu.cpuid}.
 * @example
 * vcpu.cpuid.set(kvm.supportedCpuid())
 */
export class VcpuCpuid {
  readonly #handle: VcpuHandle

  static {
    makeCpuid = (handle) => new VcpuCpuid(ours, handle)
    prepareCpuid = (cpuid, ...given) => cpuid.#prepare(...given)
  }

  private constructor(key: symbol, handle: VcpuHandle) {
    checkOurs(key, 'a VcpuCpuid', 'createVcpu() of a Vm')
    this.#handle = handle
  }

  /**
   * Sets the answers: KVM_SET_CPUID2. After the first run the kernel accepts only the answers that it already has.
   * @param entries the entries, or objects with some of their fields
   */
  set(entries: Iterable<Some<typeof CpuidEntry.fields>>): void {
    const list = checkList('entries', entries).map((entry, place) => entryOf(CpuidEntry, `entries[${place}]`, entry))
    this.#handle.list(KVM_SET_CPUID2, CpuidEntry, list, 'setting its CPUID', {
      E2BIG: `the kernel takes at most ${mostEntries} entries, and these are ${list.length}`
    })
  }

  // The count cannot be used: kernels before 6.9 leave it as it was, and leave the rest of the entries zero.
  #get(): CpuidEntry[] {
    const room = Array.from({ length: mostEntries }, () => new CpuidEntry())
    const { entries } = this.#handle.list(KVM_GET_CPUID2, CpuidEntry, room, 'reading its CPUID')
    return entries.filter(({ bytes }) => bytes.some((byte) => byte !== 0))
  }

  #prepare(entries: readonly CpuidEntry[], longMode: boolean): void {
    const { name } = this.#handle
    const known = this.#get()
    if (known.length > 0) {
      if (longMode && !known.some(hasLongMode))
        throw new KvmError(
          'state',
          `${name} has a CPUID without long mode (function 0x80000001, bit 29 of EDX); call cpuid.set() with it before the first run`
        )
      return
    }
    try {
      this.set(entries)
    } catch (error) {
      // Since Linux 5.16 the kernel accepts no CPUID after the first run.
      if ((error as KvmError).errno !== 'EINVAL') throw error
      if (longMode)
        throw new KvmError(
          'state',
          `${name} ran without a CPUID, and the kernel accepts none any more; call cpuid.set(), or enter(), before the first run`
        )
    }
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuCpuid')
  }
}
