/**
 * The structures that the library uses, under names of its own; all of them, as <linux/kvm.h> has them, are in generated/structures.
 * Documentation/virt/kvm/api.rst names each by its ioctl.
 */
import * as generated from './generated/structures.js'

export const UserspaceMemoryRegion = generated.kvm_userspace_memory_region

/** The second form, for slots with a guest_memfd (api.rst 4.140); it begins as the first. */
export const UserspaceMemoryRegion2 = generated.kvm_userspace_memory_region2

export const CreateGuestMemfd = generated.kvm_create_guest_memfd

/** General-purpose registers: KVM_GET_REGS, KVM_SET_REGS. */
export const Registers = generated.kvm_regs
export type Registers = generated.kvm_regs

/** A segment register, hidden part included (Intel SDM volume 3, 3.4.3). */
export const Segment = generated.kvm_segment
/** An instance of {@link Segment}. */
export type Segment = generated.kvm_segment

export const DescriptorTable = generated.kvm_dtable

/** Segments, descriptor tables, control registers: KVM_GET_SREGS, KVM_SET_SREGS. */
export const SpecialRegisters = generated.kvm_sregs
export type SpecialRegisters = generated.kvm_sregs

export const Fpu = generated.kvm_fpu

export const DebugRegisters = generated.kvm_debugregs

export const MpState = generated.kvm_mp_state

/** What waits to be delivered to a vCPU, and what holds it up: KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS (api.rst 4.31, which has the parts' fields). */
export const VcpuEvents = generated.kvm_vcpu_events

export const Translation = generated.kvm_translation

export const GuestDebugRegisters = generated.kvm_guest_debug_arch

/** Single steps and breakpoints: KVM_SET_GUEST_DEBUG. */
export const GuestDebug = generated.kvm_guest_debug

/** One leaf, or sub-leaf, of CPUID: KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2. */
export const CpuidEntry = generated.kvm_cpuid_entry2
/** An instance of {@link CpuidEntry}. */
export type CpuidEntry = generated.kvm_cpuid_entry2

export const MsrEntry = generated.kvm_msr_entry

/** slot in, bitmap pointer filled in by the add-on. */
export const DirtyLog = generated.kvm_dirty_log

/** What KVM_CLEAR_DIRTY_LOG protects again (api.rst 4.117). */
export const ClearDirtyLog = generated.kvm_clear_dirty_log

/** An entry of a dirty ring (api.rst 8.29). */
export const DirtyGfn = generated.kvm_dirty_gfn

/** A range whose writes are coalesced (api.rst 4.116); pio is 1 for ports. */
export const CoalescedZone = generated.kvm_coalesced_mmio_zone

/** A coalesced write, as it lies in the ring. */
export const CoalescedEntry = generated.kvm_coalesced_mmio

/** A write that signals an eventfd (api.rst 4.59). */
export const IoEventfd = generated.kvm_ioeventfd

/** An eventfd that raises an interrupt (api.rst 4.75). */
export const Irqfd = generated.kvm_irqfd

/** The registers of one interrupt controller (api.rst 4.26). */
export const IrqchipState = generated.kvm_irqchip

export const IrqLevel = generated.kvm_irq_level

export const Msi = generated.kvm_msi

/** Where a GSI leads (api.rst 4.52). */
export const IrqRoutingEntry = generated.kvm_irq_routing_entry

export const PitConfig = generated.kvm_pit_config

export const Interrupt = generated.kvm_interrupt

/** The local APIC's registers, as they lie in its page (Intel SDM volume 3, table 12-1). */
export const LapicState = generated.kvm_lapic_state

export const EnableCap = generated.kvm_enable_cap

export const StatsHeader = generated.kvm_stats_header
