/** The meaning of CPUID leaves, without KVM. */
import { kvm_cpuid_entry2 } from '../abi/generated/structures.js'

/** One leaf, or sub-leaf, of CPUID, for KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2. */
export const CpuidEntry = kvm_cpuid_entry2
/** An instance of {@link CpuidEntry}. */
export type CpuidEntry = kvm_cpuid_entry2

// Function 0x80000001: EDX bits 29, 20 and 11 (AMD APM volume 3, appendix E).
const longMode = 1 << 29
const noExecute = 1 << 20
const syscall = 1 << 11

/** Whether this leaf says that the processor has long mode. */
export const hasLongMode = (entry: CpuidEntry) => entry.function === 0x8000_0001 && (entry.edx & longMode) !== 0

/**
 * Describes a processor with long mode, NX and SYSCALL, and nothing else. KVM lets a guest set EFER.LME only if its CPUID has long mode. Older
 * kernels did not look at CPUID before it was set.
 */
export function longModeCpuid(): CpuidEntry[] {
  const features = { function: 0x8000_0001, edx: longMode | noExecute | syscall }
  return [{ function: 0, eax: 1 }, { function: 1 }, { function: 0x8000_0000, eax: 0x8000_0001 }, features].map((values) => new CpuidEntry(values))
}
