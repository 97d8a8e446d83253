/** What a vCPU's CPUID instruction answers. */
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
/** @internal Sets CPUID where nobody has, and looks whether what is set has long mode where that is needed. */
export let prepareCpuid: (cpuid: VcpuCpuid, entries: readonly CpuidEntry[], longMode: boolean) => void

// KVM_MAX_CPUID_ENTRIES of arch/x86/include/asm/kvm_host.h.
const mostEntries = 256

/**
 * What the guest's CPUID answers: {@link Vcpu.cpuid}.
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
   * Sets the answers: KVM_SET_CPUID2. The kernel takes them before the first run, and later only those that it has already.
   * @param entries entries, or their fields
   */
  set(entries: Iterable<Some<typeof CpuidEntry.fields>>): void {
    const list = checkList('entries', entries).map((entry, place) => entryOf(CpuidEntry, `entries[${place}]`, entry))
    this.#handle.list(KVM_SET_CPUID2, CpuidEntry, list, 'setting its CPUID', {
      E2BIG: `the kernel takes at most ${mostEntries} entries, and these are ${list.length}`
    })
  }

  // Without a count: kernels before 6.9 leave that as it was, and the rest zeros.
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
          `${name} has a CPUID without long mode (function 0x80000001, bit 29 of EDX); cpuid.set() with it comes before the first run`
        )
      return
    }
    try {
      this.set(entries)
    } catch (error) {
      // From Linux 5.16 on the kernel takes none after the first run.
      if ((error as KvmError).errno !== 'EINVAL') throw error
      if (longMode)
        throw new KvmError(
          'state',
          `${name} ran without a CPUID, and the kernel takes none any more; cpuid.set(), or enter(), comes before the first run`
        )
    }
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('VcpuCpuid')
  }
}
