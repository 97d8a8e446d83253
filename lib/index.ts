/**
 * The Linux KVM API: KVM itself, VMs, vCPUs, guest memory and memslots.
 * @packageDocumentation
 */
export type { Gpa, Hpa, Hva } from './abi/addresses.js'
export { GiB, KiB, MiB } from './abi/arguments.js'
export { KvmError, type KvmErrorCode, type KvmErrorDetails } from './abi/errors.js'
export { type CapabilityName, capabilities } from './abi/generated/capabilities.js'
export { Capabilities, VmCapabilities } from './kvm/capabilities.js'
export { Eventfd } from './kvm/eventfd.js'
export { Kvm } from './kvm/kvm.js'
export { type StatisticDescriptor, Statistics, type StatisticsDescription, type StatisticsLayout } from './kvm/statistics.js'
export { VcpuCpuid } from './kvm/vcpu/cpuid.js'
export { VcpuDebug } from './kvm/vcpu/debug.js'
export { VcpuEvents } from './kvm/vcpu/events.js'
export type * from './kvm/vcpu/exits.js'
export type { VcpuHost } from './kvm/vcpu/host.js'
export { VcpuLapic } from './kvm/vcpu/lapic.js'
export {
  type LongModeOptions,
  longModeTablesSize,
  type Mode,
  type ModeOptions,
  type ProtectedModeOptions,
  type RealModeOptions
} from './kvm/vcpu/modes.js'
export { VcpuMsrs } from './kvm/vcpu/msrs.js'
export { VcpuRegisters } from './kvm/vcpu/registers.js'
export type { RunOptions } from './kvm/vcpu/runs.js'
export { SyncRegisters, syncBits } from './kvm/vcpu/sync-registers.js'
export type {
  ExitHandler,
  ExitHandlers,
  MemoryError,
  QueuedRange,
  RunEnd,
  StartOptions,
  VcpuState
} from './kvm/vcpu/thread.js'
export { Vcpu } from './kvm/vcpu/vcpu.js'
export { type CoalescedHandler, type CoalescedRange, type CoalescedWrite, CoalescedZone } from './kvm/vm/coalesced.js'
export { GuestMemory } from './kvm/vm/guest-memory.js'
export { type GsiRoute, type MsiMessage, VmInterrupts } from './kvm/vm/interrupts.js'
export { IoEventfd, type IoEventfdOptions } from './kvm/vm/ioeventfd.js'
export { Irqfd, type IrqfdOptions } from './kvm/vm/irqfd.js'
export type { VmLimits } from './kvm/vm/limits.js'
export type { VmToken } from './kvm/vm/share.js'
export { Vm } from './kvm/vm/vm.js'
export { DemandPaging, type FaultHandler, type PageContent, type PageFault, type PageSource } from './memory/demand-paging.js'
export { DirtyLog, type DirtyLogMode, type DirtyLogOptions, type DirtyRange } from './memory/dirty-log.js'
export { GuestMemfd, type GuestMemfdOptions } from './memory/guest-memfd.js'
export { Mapping } from './memory/mapping.js'
export type { Advice, AnonymousOptions, FileOptions, HugetlbOptions, MappingOptions, Protection } from './memory/mapping-options.js'
export { Memslot } from './memory/memslot.js'
export { Memslots } from './memory/memslots.js'
export type { MemslotChange, MemslotFlags, MemslotOptions } from './memory/placement.js'
export { MemslotTransaction } from './memory/transaction.js'
export { CpuidEntry } from './x86/cpuid.js'
export { Registers, Segment, SpecialRegisters } from './x86/registers.js'
