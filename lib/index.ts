/**
 * node-kvm: the Linux KVM API for Node.js.
 * @packageDocumentation
 */
export { GiB, KiB, MiB } from './abi/arguments.js'
export { KvmError, type KvmErrorCode, type KvmErrorDetails } from './abi/errors.js'
export { CpuidEntry, Registers, Segment, SpecialRegisters } from './abi/structures.js'
export { Capabilities, type CapabilityName, capabilities, VmCapabilities } from './kvm/capabilities.js'
export { EventSource } from './kvm/eventfd.js'
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
export { type RunOptions, Vcpu } from './kvm/vcpu/vcpu.js'
export { type CoalescedHandler, type CoalescedRange, type CoalescedWrite, CoalescedZone } from './kvm/vm/coalesced.js'
export { GuestMemory } from './kvm/vm/guest-memory.js'
export { type GsiRoute, type MsiMessage, VmInterrupts } from './kvm/vm/interrupts.js'
export { IoEventfd, type IoEventfdOptions } from './kvm/vm/ioeventfd.js'
export { Irqfd, type IrqfdOptions } from './kvm/vm/irqfd.js'
export type { VmLimits } from './kvm/vm/limits.js'
export type { VmToken } from './kvm/vm/share.js'
export { Vm } from './kvm/vm/vm.js'
export type { MemslotRow } from './memory/changes.js'
export { DemandPaging, type FaultHandler, type PageContent, type PageFault, type PageSource } from './memory/demand-paging.js'
export { DirtyLog, type DirtyLogMode, type DirtyLogOptions, type DirtyRange } from './memory/dirty-log.js'
export { GuestMemfd, type GuestMemfdOptions } from './memory/guest-memfd.js'
export {
  type Advice,
  type AnonymousOptions,
  type FileOptions,
  type HugetlbOptions,
  Mapping,
  type MappingOptions,
  type Protection
} from './memory/mapping.js'
export { Memslot, type MemslotChange, type MemslotFlags, type MemslotOptions } from './memory/memslot.js'
export { Memslots } from './memory/memslots.js'
export { MemslotTransaction } from './memory/transaction.js'
export { type Diagnosis, diagnose, type Finding } from './observe/doctor.js'
export { describeHost, type Host, type Mmu } from './observe/host.js'
export type { Backing } from './observe/tables/backing.js'
export { type Change, type ChangeKind, diff } from './observe/tables/diff.js'
export type { Evidence } from './observe/tables/evidence.js'
export type { FrameFlags, HostView } from './observe/tables/host-page.js'
export { Machine, machines } from './observe/tables/machines.js'
export { Mirror } from './observe/tables/mirror.js'
export { type HostPage, readPagemap } from './observe/tables/pagemap.js'
export { type Summary, summarize } from './observe/tables/summary.js'
export type { ListedSlot, TableSlot } from './observe/tables/table-slot.js'
export { type LeafColumns, type PageColumns, rowOf, type TableRange, type Tables } from './observe/tables/tables.js'
export { hpaToGpa, hvaToGpa, type SecondStage, type Translation } from './observe/tables/translate.js'
export { describeEvent } from './observe/trace/describe.js'
export type * from './observe/trace/events.js'
export { type Counters, statisticsGrowth } from './observe/trace/growth.js'
export { timeline } from './observe/trace/timeline.js'
export { Trace, type TraceOptions, type TraceSubject } from './observe/trace/trace.js'
export { type AssembleOptions, assemble } from './testing/assemble.js'
export { type Access, Guest } from './testing/guest.js'
export type { Check, Step, StepEntries, StepStatistics } from './walkthrough/thread-step.js'
export { runWalkthrough, type Walkthrough } from './walkthrough/walkthrough.js'
export { decodeEptQualification, decodeNestedPageFault, type EptQualification, type NestedPageFault } from './x86/qualification.js'
export { accessText, decodeSpte, type Spte, type SpteFormat } from './x86/spte.js'
