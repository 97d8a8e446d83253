/**
 * Why KVM_RUN returned: the union of kvm_run (api.rst 5), as a discriminated union with its whole payload. The fields of an exit that are not
 * readonly are its answer. Their values when the vCPU goes on are what the guest gets.
 */

import type { Gpa } from '../../abi/addresses.js'

/** A port write. If `count` is above 1, it is a string write (`rep outs`). */
export interface IoOutExit {
  readonly reason: 'io-out'
  readonly port: number
  /** The bytes of one access: 1, 2 or 4. */
  readonly size: number
  /** The number of accesses of a string instruction that the exit stands for. */
  readonly count: number
  /** The `size * count` bytes that the guest wrote. */
  readonly data: Uint8Array
  /** The first access of `data` as a number. */
  readonly value: number
}
/** A port read. If `count` is above 1, it is a string read (`rep ins`). Without an answer the guest reads zeros. */
export interface IoInExit {
  readonly reason: 'io-in'
  readonly port: number
  /** The bytes of one access: 1, 2 or 4. */
  readonly size: number
  /** The number of accesses of a string instruction that the exit stands for. */
  readonly count: number
  /** The `size * count` bytes that the guest will read. Write the answer here, in place. */
  readonly data: Uint8Array
  /** The first access of `data` as a number. */
  get value(): number
  /** Writes the bytes of the first access, and leaves the rest of `data` as it is. */
  set value(value: number | bigint)
}
/**
 * An access outside every memslot, or a write to a READONLY one. Without an answer the guest reads zeros. An access that crosses a page border
 * causes one exit for each part.
 */
export interface MmioExit {
  readonly reason: 'mmio'
  readonly gpa: Gpa
  readonly isWrite: boolean
  /** The bytes of the access: 1 to 8. */
  readonly size: number
  /** The bytes that the guest wrote. For a read, the bytes that it will get: write the answer here, in place. */
  readonly data: Uint8Array
  /**
   * `data` as a number.
   * @throws KvmError `limit` if the eight bytes are too large for a number (2^53 and above): read `data` instead
   */
  get value(): number
  /**
   * Answers a read. A bigint can hold any eight bytes.
   * @throws KvmError `argument` if the value does not fit in `size` bytes, `state` if the access is a write
   */
  set value(value: number | bigint)
}
/** The guest executed HLT, and no interrupt controller in the kernel waits for it. */
export interface HltExit {
  readonly reason: 'hlt'
}
/** The guest had a triple fault. */
export interface ShutdownExit {
  readonly reason: 'shutdown'
}
/** The processor refused the guest's state. `hardwareReason` is in Intel SDM volume 3 appendix C, or AMD APM volume 2 appendix C. */
export interface FailEntryExit {
  readonly reason: 'fail-entry'
  readonly hardwareReason: bigint
  readonly cpu: number
}

interface InternalError {
  readonly reason: 'internal-error'
  /** Everything that KVM said, as it is in kvm_run. What the other fields leave out is for debugging, and may differ between kernels. */
  readonly data: readonly bigint[]
}
/** KVM had to emulate an instruction and could not. */
export interface EmulationFailure extends InternalError {
  readonly suberror: 'emulation'
  /** KVM_INTERNAL_ERROR_EMULATION_FLAG_ bits, which say what is known about the failure. */
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
/** The guest left during the delivery of an event, and KVM cannot deliver it again. The usual cause is an IDT in MMIO. */
export interface DeliveryFailure extends InternalError {
  readonly suberror: 'delivery'
  /** The event that was delivered: Intel SDM volume 3, 25.9.3, or EXITINTINFO on AMD. */
  readonly vectoringInfo: bigint | undefined
  /** The processor's number for the exit. */
  readonly exitReason: bigint | undefined
  readonly exitQualification: bigint | undefined
  /** The address of the access, if the kernel says it: always since Linux 6.14. */
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
/** KVM gave up. The vCPU stays in the state it had. */
export type InternalErrorExit = EmulationFailure | SimultaneousExceptions | DeliveryFailure | UnexpectedExitReason | OtherInternalError

/** The guest touched memory that the host cannot give it. In the kernel this exit comes together with an errno. */
export interface MemoryFaultExit {
  readonly reason: 'memory-fault'
  /** KVM_MEMORY_EXIT_FLAG_ bits. */
  readonly flags: bigint
  /** Whether the guest accessed it as private memory (KVM_MEMORY_EXIT_FLAG_PRIVATE). */
  readonly isPrivate: boolean
  readonly gpa: Gpa
  readonly size: number
}
/** The guest asked for a reset or a shutdown, or reported a crash. */
export interface SystemEventExit {
  readonly reason: 'system-event'
  /** The KVM_SYSTEM_EVENT_ by name, or its number if this library has no name for it. */
  readonly type: 'shutdown' | 'reset' | 'crash' | 'wakeup' | 'suspend' | 'sev-term' | 'tdx-fatal' | number
  readonly data: readonly bigint[]
}
/** A breakpoint or a single step that KVM_SET_GUEST_DEBUG asked for. */
export interface DebugExit {
  readonly reason: 'debug'
  readonly exception: number
  readonly pc: bigint
  readonly dr6: bigint
  readonly dr7: bigint
}
/** An exception that KVM passes on. No present processor causes this exit. */
export interface ExceptionExit {
  readonly reason: 'exception'
  readonly exception: number
  readonly errorCode: number
}
/** A VMCALL or VMMCALL that KVM_CAP_EXIT_HYPERCALL passes to user space. */
export interface HypercallExit {
  readonly reason: 'hypercall'
  readonly number: bigint
  readonly arguments: readonly bigint[]
  /** KVM_EXIT_HYPERCALL_ bits. */
  readonly flags: bigint
  /** Whether the guest was in 64-bit mode (KVM_EXIT_HYPERCALL_LONG_MODE). */
  readonly isLongMode: boolean
  /** The value of RAX that the guest gets, 0n unless assigned. */
  result: bigint
}
interface Msr {
  readonly index: number
  /** Why the access came here (KVM_MSR_EXIT_REASON_): KVM does not know the MSR, the access was invalid, or the VM's filter denied it. */
  readonly cause: 'unknown' | 'invalid' | 'filter' | number
  /** Set it to true to give the guest #GP instead of a result. */
  failed: boolean
}
/** An RDMSR that KVM_CAP_X86_USER_SPACE_MSR passes to user space. */
export interface RdmsrExit extends Msr {
  readonly reason: 'rdmsr'
  /** The value that the guest reads, 0n unless assigned. */
  data: bigint
}
/** A WRMSR that KVM_CAP_X86_USER_SPACE_MSR passes to user space. */
export interface WrmsrExit extends Msr {
  readonly reason: 'wrmsr'
  /** The value that the guest wrote. */
  readonly data: bigint
}
/** An access to an MSR that KVM_CAP_X86_USER_SPACE_MSR passes to user space. */
export type MsrExit = RdmsrExit | WrmsrExit
/** The guest takes interrupts again (`request_interrupt_window` asked for this exit). */
export interface IrqWindowExit {
  readonly reason: 'irq-window-open'
}
/** The guest lowered its task priority. An interrupt controller in user space needs to know. */
export interface SetTprExit {
  readonly reason: 'set-tpr'
  readonly cr8: bigint
}
/** The guest accessed its task priority register (KVM_TPR_ACCESS_REPORTING). */
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
/** The guest changed the state of its Hyper-V synthetic interrupt controller (KVM_CAP_HYPERV_SYNIC). */
export interface HypervSynicExit {
  readonly reason: 'hyperv'
  readonly type: 'synic'
  readonly msr: number
  readonly control: bigint
  readonly eventPage: bigint
  readonly messagePage: bigint
}
/** A Hyper-V hypercall that KVM passes to user space. */
export interface HypervHypercallExit {
  readonly reason: 'hyperv'
  readonly type: 'hcall'
  readonly input: bigint
  readonly parameters: readonly bigint[]
  /** The result that the guest gets, 0n unless assigned. */
  result: bigint
}
/** The guest used an MSR of Hyper-V's synthetic debugger. */
export interface HypervDebuggerExit {
  readonly reason: 'hyperv'
  readonly type: 'syndbg'
  readonly msr: number
  readonly control: bigint
  readonly sendPage: bigint
  readonly receivePage: bigint
  readonly pendingPage: bigint
  /** The value that the guest reads from the status MSR. */
  status: bigint
}
/** A request of the guest to Hyper-V, which KVM stands in for. */
export type HypervExit = HypervSynicExit | HypervHypercallExit | HypervDebuggerExit
/** A Xen hypercall that KVM passes to user space (KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL). */
export interface XenExit {
  readonly reason: 'xen'
  readonly type: 'hcall'
  readonly isLongMode: boolean
  readonly cpl: number
  readonly input: bigint
  readonly parameters: readonly bigint[]
  /** The value of RAX that the guest gets, 0n unless assigned. */
  result: bigint
}
/** The dirty ring is full. It must be harvested and reset before the vCPU goes on. */
export interface DirtyRingFullExit {
  readonly reason: 'dirty-ring-full'
}
/** A vCPU of an SEV-ES guest waits for another vCPU to start it. */
export interface ApResetHoldExit {
  readonly reason: 'ap-reset-hold'
}
/** The guest locked the bus (KVM_CAP_X86_BUS_LOCK_EXIT). */
export interface BusLockExit {
  readonly reason: 'bus-lock'
}
/** The guest opened no event window for too long (KVM_CAP_X86_NOTIFY_VMEXIT). */
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
  /** The guest-physical address at which the certificates must be written. */
  readonly gpa: Gpa
  /** How many pages the guest has for them. With the result ENOSPC, assign how many are needed. */
  pages: bigint
  /** 0n, the default, means that the certificates are there; any other value is an errno, as a positive number. */
  result: bigint
}
/**
 * A TDX guest called its host (TDG.VP.VMCALL), and KVM passes the call to user space (KVM_EXIT_TDX of api.rst 5). For each number of a call, the
 * Guest-Host-Communication Interface defines which words of `data` are the guest's question and which are the answer.
 */
export interface TdxExit {
  readonly reason: 'tdx'
  /** The number of the call, from R11. */
  readonly number: bigint
  readonly flags: bigint
  /** The five words after the result. Assign all of them at once. */
  data: readonly bigint[]
  /** The status that the guest gets in R10. By default it says that the host lacks the call. */
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
/** A reason that this library does not know by name. `number` is KVM's number for it. */
export interface OtherExit {
  readonly reason: 'other'
  readonly number: number
}

/**
 * One exit. The objects of port and MMIO exits, and their `data`, belong to the vCPU, and its next run() fills them anew: copy what must outlive it.
 * Every other exit is an object of its own. An assignment to an exit that the vCPU has left changes nothing in the guest.
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
  | TdxExit
  | TimeoutExit
  | InterruptedExit
  | OtherExit
