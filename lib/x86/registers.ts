/** The processor's registers in KVM's layout. */
import { kvm_debugregs, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs } from '../abi/generated/structures.js'

/** General-purpose registers, for KVM_GET_REGS and KVM_SET_REGS. */
export const Registers = kvm_regs
/** An instance of {@link Registers}. */
export type Registers = kvm_regs

/** A segment register with its hidden part (Intel SDM volume 3, 3.4.3). */
export const Segment = kvm_segment
/** An instance of {@link Segment}. */
export type Segment = kvm_segment

/** Segments, descriptor tables and control registers, for KVM_GET_SREGS and KVM_SET_SREGS. */
export const SpecialRegisters = kvm_sregs
/** An instance of {@link SpecialRegisters}. */
export type SpecialRegisters = kvm_sregs

/** The state of the x87 and SSE units, for KVM_GET_FPU and KVM_SET_FPU. */
export const Fpu = kvm_fpu
/** An instance of {@link Fpu}. */
export type Fpu = kvm_fpu

/** DR0 to DR3, DR6 and DR7, for KVM_GET_DEBUGREGS and KVM_SET_DEBUGREGS. */
export const DebugRegisters = kvm_debugregs
/** An instance of {@link DebugRegisters}. */
export type DebugRegisters = kvm_debugregs
