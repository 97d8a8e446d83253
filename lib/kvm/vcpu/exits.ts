/**
 * What KVM_RUN came back for: the union of kvm_run (api.rst 5), as a discriminated union with its whole payload. The fields of an exit that are
 * not readonly are its answer: what they hold when the vCPU goes on is what the guest gets.
 */

import type { Gpa } from '../../abi/addresses.js'

/** A port write, or with `count` above 1 a string write (`rep outs`). */
export interface IoOutExit {
  readonly reason: 'io-out'
  readonly port: number
  /** Bytes of one access: 1, 2 or 4. */
  readonly size: number
  /** How many accesses of a string instruction the exit stands for. */
  readonly count: number
  /** The `size * count` bytes that the guest wrote. */
  readonly data: Uint8Array
  /** The first access of `data` as a number. */
  readonly value: number
}
/** A port read, or with `count` above 1 a string read (`rep ins`). Unanswered, the guest reads zeros. */
export interface IoInExit {
  readonly reason: 'io-in'
  readonly port: number
  /** Bytes of one access: 1, 2 or 4. */
  readonly size: number
  /** How many accesses of a string instruction the exit stands for. */
  readonly count: number
  /** The `size * count` bytes that the guest reads: the answer is written here, in place. */
  readonly data: Uint8Array
  /** The first access of `data` as a number. */
  get value(): number
  /** Writes the bytes of the first access, and leaves the others of `data`. */
  set value(value: number | bigint)
}
/**
 * An access outside every memslot, or a write to a READONLY one. Unanswered, the guest reads zeros. What crosses a page comes as one exit for
 * each part of it.
 */
export interface MmioExit {
  readonly reason: 'mmio'
  readonly gpa: Gpa
  readonly isWrite: boolean
  /** Bytes of the access: 1 to 8. */
  readonly size: number
  /** The bytes that the guest wrote, or those that it reads: then the answer is written here, in place. */
  readonly data: Uint8Array
  /**
   * `data` as a number.
   * @throws KvmError `limit` when eight bytes hold what a number cannot (2^53 and above): read `data`
   */
  get value(): number
  /**
   * Answers a read; a bigint holds any eight bytes.
   * @throws KvmError `argument` when it does not fit in `size` bytes, `state` when the guest wrote
   */
  set value(value: number | bigint)
}
/** The guest executed HLT, and no in-kernel interrupt controller waits for it. */
export interface HltExit {
  readonly reason: 'hlt'
}
/** A triple fault. */
export interface ShutdownExit {
  readonly reason: 'shutdown'
}
/** The processor refused the guest's state. `hardwareReason`: Intel SDM volume 3 appendix C, or AMD APM volume 2 appendix C. */
export interface FailEntryExit {
  readonly reason: 'fail-entry'
  readonly hardwareReason: bigint
  readonly cpu: number
}

interface InternalError {
  readonly reason: 'internal-error'
  /** All that KVM said, as it lies in kvm_run; what the other fields leave out is for debugging and may differ from kernel to kernel. */
  readonly data: readonly bigint[]
}
/** An instruction that KVM had to emulate and could not. */
export interface EmulationFailure extends InternalError {
  readonly suberror: 'emulation'
  /** KVM_INTERNAL_ERROR_EMULATION_FLAG_ bits: what of the failure is known. */
  readonly flags: bigint
  /** The bytes of the instruction, as far as KVM had fetched them. */
  readonly instruction: Uint8Array | undefined
}
/** An exception came while another was delivered, and KVM expected neither. */
export interface SimultaneousExceptions extends InternalError {
  readonly suberror: 'simultaneous-exceptions'
  /** The event that was delivered: Intel SDM volume 3, 25.9.3. */
  readonly vectoringInfo: bigint | undefined
  /** The exception that came meanwhile: Intel SDM volume 3, 25.9.2. */
  readonly interruptionInfo: bigint | undefined
  readonly errorCode: bigint | undefined
}
/** The guest left while an event was delivered to it, for a reason after which KVM cannot deliver it again: an IDT that is MMIO, mostly. */
export interface DeliveryFailure extends InternalError {
  readonly suberror: 'delivery'
  /** The event that was delivered: Intel SDM volume 3, 25.9.3, or EXITINTINFO of AMD. */
  readonly vectoringInfo: bigint | undefined
  /** The processor's number for the exit. */
  readonly exitReason: bigint | undefined
  readonly exitQualification: bigint | undefined
  /** What was accessed, where the kernel says it: always since Linux 6.14. */
  readonly gpa: bigint | undefined
}
/** The processor left the guest for a reason that KVM does not handle. */
export interface UnexpectedExitReason extends InternalError {
  readonly suberror: 'unexpected-exit-reason'
  /** The processor's number for the exit. */
  readonly exitReason: bigint | undefined
}
/** A KVM_INTERNAL_ERROR_ that this library does not know by name. */
export interface OtherInternalError extends InternalError {
  readonly suberror: number
}
/** KVM gave up. The vCPU stays where it was. */
export type InternalErrorExit = EmulationFailure | SimultaneousExceptions | DeliveryFailure | UnexpectedExitReason | OtherInternalError

/** The guest touched memory the host cannot give. Comes with an errno in the kernel. */
export interface MemoryFaultExit {
  readonly reason: 'memory-fault'
  /** KVM_MEMORY_EXIT_FLAG_ bits. */
  readonly flags: bigint
  /** Whether the guest accessed it as private memory (KVM_MEMORY_EXIT_FLAG_PRIVATE). */
  readonly isPrivate: boolean
  readonly gpa: Gpa
  readonly size: number
}
/** Reset, shutdown or crash asked for by the guest. */
export interface SystemEventExit {
  readonly reason: 'system-event'
  /** KVM_SYSTEM_EVENT_, or its number where this library has no name. */
  readonly type: 'shutdown' | 'reset' | 'crash' | 'wakeup' | 'suspend' | 'sev-term' | 'tdx-fatal' | number
  readonly data: readonly bigint[]
}
/** A breakpoint or single step asked for by KVM_SET_GUEST_DEBUG. */
export interface DebugExit {
  readonly reason: 'debug'
  readonly exception: number
  readonly pc: bigint
  readonly dr6: bigint
  readonly dr7: bigint
}
/** An exception that KVM hands on; seen on no processor of today. */
export interface ExceptionExit {
  readonly reason: 'exception'
  readonly exception: number
  readonly errorCode: number
}
/** VMCALL or VMMCALL that KVM_CAP_EXIT_HYPERCALL hands to user space. */
export interface HypercallExit {
  readonly reason: 'hypercall'
  readonly number: bigint
  readonly arguments: readonly bigint[]
  /** KVM_EXIT_HYPERCALL_ bits. */
  readonly flags: bigint
  /** Whether the guest was in 64-bit mode (KVM_EXIT_HYPERCALL_LONG_MODE). */
  readonly isLongMode: boolean
  /** What the guest finds in RAX: 0n unless assigned. */
  result: bigint
}
interface Msr {
  readonly index: number
  /** Why it came here (KVM_MSR_EXIT_REASON_): KVM does not know the MSR, found the access invalid, or the VM's filter denied it. */
  readonly cause: 'unknown' | 'invalid' | 'filter' | number
  /** Assigning true gives the guest #GP instead. */
  failed: boolean
}
/** RDMSR that KVM_CAP_X86_USER_SPACE_MSR hands to user space. */
export interface RdmsrExit extends Msr {
  readonly reason: 'rdmsr'
  /** What the guest reads: 0n unless assigned. */
  data: bigint
}
/** WRMSR that KVM_CAP_X86_USER_SPACE_MSR hands to user space. */
export interface WrmsrExit extends Msr {
  readonly reason: 'wrmsr'
  /** What the guest wrote. */
  readonly data: bigint
}
/** An access to an MSR that KVM_CAP_X86_USER_SPACE_MSR hands to user space. */
export type MsrExit = RdmsrExit | WrmsrExit
/** The guest takes interrupts again (asked for by `request_interrupt_window`). */
export interface IrqWindowExit {
  readonly reason: 'irq-window-open'
}
/** The guest lowered its task priority, of which a user-space interrupt controller is told. */
export interface SetTprExit {
  readonly reason: 'set-tpr'
  readonly cr8: bigint
}
/** The guest touched its task priority register (KVM_TPR_ACCESS_REPORTING). */
export interface TprAccessExit {
  readonly reason: 'tpr-access'
  readonly rip: bigint
  readonly isWrite: boolean
}
/** A non-maskable interrupt of the host ended the run. */
export interface NmiExit {
  readonly reason: 'nmi'
}
/** The guest ended a level-triggered interrupt that the split interrupt controller watches. */
export interface ApicEoiExit {
  readonly reason: 'ioapic-eoi'
  readonly vector: number
}
/** The guest changed what its Hyper-V synthetic interrupt controller is at (KVM_CAP_HYPERV_SYNIC). */
export interface HypervSynicExit {
  readonly reason: 'hyperv'
  readonly type: 'synic'
  readonly msr: number
  readonly control: bigint
  readonly eventPage: bigint
  readonly messagePage: bigint
}
/** A Hyper-V hypercall that KVM hands to user space. */
export interface HypervHypercallExit {
  readonly reason: 'hyperv'
  readonly type: 'hcall'
  readonly input: bigint
  readonly parameters: readonly bigint[]
  /** What the guest gets: 0n unless assigned. */
  result: bigint
}
/** The guest used a MSR of Hyper-V's synthetic debugger. */
export interface HypervDebuggerExit {
  readonly reason: 'hyperv'
  readonly type: 'syndbg'
  readonly msr: number
  readonly control: bigint
  readonly sendPage: bigint
  readonly receivePage: bigint
  readonly pendingPage: bigint
  /** What the guest reads in the status MSR. */
  status: bigint
}
/** What a guest asked of Hyper-V, in place of which KVM runs it. */
export type HypervExit = HypervSynicExit | HypervHypercallExit | HypervDebuggerExit
/** A Xen hypercall that KVM hands to user space (KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL). */
export interface XenExit {
  readonly reason: 'xen'
  readonly type: 'hcall'
  readonly isLongMode: boolean
  readonly cpl: number
  readonly input: bigint
  readonly parameters: readonly bigint[]
  /** What the guest finds in RAX: 0n unless assigned. */
  result: bigint
}
/** The dirty ring must be harvested and reset before the vCPU runs on. */
export interface DirtyRingFullExit {
  readonly reason: 'dirty-ring-full'
}
/** A vCPU of an SEV-ES guest waits for another to start it. */
export interface ApResetHoldExit {
  readonly reason: 'ap-reset-hold'
}
/** The guest locked the bus (KVM_CAP_X86_BUS_LOCK_EXIT). */
export interface BusLockExit {
  readonly reason: 'bus-lock'
}
/** No event window opened in the guest for too long (KVM_CAP_X86_NOTIFY_VMEXIT). */
export interface NotifyExit {
  readonly reason: 'notify'
  /** KVM_NOTIFY_ bits. */
  readonly flags: number
  /** Whether the vCPU's state is lost, so that it cannot go on (KVM_NOTIFY_CONTEXT_INVALID). */
  readonly isContextInvalid: boolean
}
/** An SEV-SNP guest asked for a report with the host's certificates (KVM_SEV_SNP_ENABLE_REQ_CERTS). */
export interface SnpCertificatesExit {
  readonly reason: 'snp-req-certs'
  /** Where the certificates are to be written. */
  readonly gpa: Gpa
  /** Pages that the guest has for them; with result ENOSPC those that are needed. */
  pages: bigint
  /** 0n unless assigned: the certificates are there; else an errno, as a positive number. */
  result: bigint
}
/** The time limit of run() passed. The vCPU is as it was and can run again. */
export interface TimeoutExit {
  readonly reason: 'timeout'
}
/** Somebody kicked the vCPU. */
export interface InterruptedExit {
  readonly reason: 'interrupted'
}
/** A reason this library does not know by name: `number` is KVM's. */
export interface OtherExit {
  readonly reason: 'other'
  readonly number: number
}

/**
 * One exit. Those of ports and of MMIO, and their `data`, belong to the vCPU and are filled anew by its next run(): copy what must outlive it. Each
 * other exit is an object of its own, and assigning to one that the vCPU has left changes nothing in the guest.
 */
export type Exit =
  | IoOutExit
  | IoInExit
  | MmioExit
  | HltExit
  | ShutdownExit
  | FailEntryExit
  | InternalErrorExit
  | MemoryFaultExit
  | SystemEventExit
  | DebugExit
  | ExceptionExit
  | HypercallExit
  | RdmsrExit
  | WrmsrExit
  | IrqWindowExit
  | SetTprExit
  | TprAccessExit
  | NmiExit
  | ApicEoiExit
  | HypervExit
  | XenExit
  | DirtyRingFullExit
  | ApResetHoldExit
  | BusLockExit
  | NotifyExit
  | SnpCertificatesExit
  | TimeoutExit
  | InterruptedExit
  | OtherExit
