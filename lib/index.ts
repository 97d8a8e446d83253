/**
 * node-kvm: the Linux KVM API for Node.js.
 * @packageDocumentation
 */
export { GiB, KiB, MiB } from './abi/arguments.js'
export { KvmError, type KvmErrorCode, type KvmErrorDetails } from './abi/errors.js'
export { describeHost, type Host, type Mmu } from './abi/host.js'
export { accessText, decodeSpte, type Spte, type SpteFormat } from './abi/spte.js'
export { CpuidEntry, Registers, Segment, SpecialRegisters } from './abi/structures.js'
export { type Diagnosis, diagnose, type Finding } from './experiments/doctor.js'
export type { Check, Step, StepEntries, StepStatistics } from './experiments/thread-step.js'
export { runWalkthrough, type Walkthrough } from './experiments/walkthrough.js'
export { type CapabilityName, capabilities } from './kvm/capabilities.js'
export { type CoalescedHandler, type CoalescedRange, type CoalescedWrite, CoalescedZone } from './kvm/coalesced.js'
export { EventSource } from './kvm/eventfd.js'
export type * from './kvm/exits.js'
export { type GsiRoute, Irqfd, type IrqfdOptions, type MsiMessage } from './kvm/interrupts.js'
export { IoEventfd, type IoEventfdOptions } from './kvm/ioeventfd.js'
export { Kvm } from './kvm/kvm.js'
export {
  type LongModeOptions,
  longModeTablesSize,
  type Mode,
  type ModeOptions,
  type ProtectedModeOptions,
  type RealModeOptions
} from './kvm/modes.js'
export { type StatisticDescriptor, Statistics, type StatisticsLayout } from './kvm/statistics.js'
export { SyncRegisters, syncBits } from './kvm/sync-registers.js'
export { type RunOptions, Vcpu } from './kvm/vcpu.js'
export { VcpuRegisters } from './kvm/vcpu-registers.js'
export type {
  ExitHandler,
  ExitHandlers,
  MemoryError,
  QueuedRange,
  RunEnd,
  StartOptions,
  VcpuState
} from './kvm/vcpu-thread.js'
export { Vm, type VmLimits, type VmToken } from './kvm/vm.js'
export { type AssembleOptions, assemble } from './machine/assemble.js'
export { type Access, Guest } from './machine/guest.js'
export type { MemslotRow } from './memory/changes.js'
export { DemandPaging, type FaultHandler, type PageContent, type PageFault, type PageSource } from './memory/demand-paging.js'
export { DirtyLog, type DirtyLogMode, type DirtyLogOptions, type DirtyRange } from './memory/dirty-log.js'
export { GuestMemfd, type GuestMemfdOptions } from './memory/guest-memfd.js'
export { type Advice, type FileOptions, type HugetlbOptions, Mapping, type MappingOptions, type Protection } from './memory/mapping.js'
export { Memslot, type MemslotChange, type MemslotFlags, type MemslotOptions } from './memory/memslot.js'
export { Memslots } from './memory/memslots.js'
export { MemslotTransaction } from './memory/transaction.js'
export { describeEvent } from './trace/describe.js'
export type * from './trace/events.js'
export { type Counters, statisticsGrowth } from './trace/growth.js'
export { decodeEptQualification, decodeNestedPageFault, type EptQualification, type NestedPageFault } from './trace/qualification.js'
export { timeline } from './trace/timeline.js'
export { Trace, type TraceOptions, type TraceSubject } from './trace/trace.js'
export type { Backing } from './translation/backing.js'
export { type Change, type ChangeKind, diff } from './translation/diff.js'
export type { Evidence } from './translation/evidence.js'
export type { FrameFlags, HostView } from './translation/host-page.js'
export { Machine, machines } from './translation/machines.js'
export { Mirror } from './translation/mirror.js'
export { type HostPage, readPagemap } from './translation/pagemap.js'
export { type Summary, summarize } from './translation/summary.js'
export type { ListedSlot, TableSlot } from './translation/table-slot.js'
export { type LeafColumns, type PageColumns, rowOf, type TableRange, type Tables } from './translation/tables.js'
export { hpaToGpa, hvaToGpa, type SecondStage, type Translation } from './translation/translate.js'
