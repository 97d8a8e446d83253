/**
 * node-kvm: the Linux KVM API for Node.js.
 * @packageDocumentation
 */
export { GiB, KiB, MiB } from './abi/arguments.js'
export { KvmError, type KvmErrorCode, type KvmErrorDetails } from './abi/errors.js'
export { CpuidEntry, Registers, Segment, SpecialRegisters } from './abi/structures.js'
export type * from './kvm/exits.js'
export { Kvm } from './kvm/kvm.js'
export { type RunOptions, Vcpu } from './kvm/vcpu.js'
export { SyncRegisters, syncBits } from './kvm/sync-registers.js'
export { Vm, type VmLimits } from './kvm/vm.js'
export { type Advice, type FileOptions, type HugetlbOptions, Mapping, type MappingOptions, type Protection } from './memory/mapping.js'
export { Memslot, type MemslotFlags, type MemslotOptions, Memslots } from './memory/memslots.js'
export { capabilities, type CapabilityName } from './kvm/capabilities.js'
export { type Diagnosis, diagnose, type Finding } from './experiments/doctor.js'
export { type Check, runWalkthrough, type Step, type StepStatistics, type Walkthrough } from './experiments/walkthrough.js'
export { describeHost, type Host, type Mmu } from './kvm/host.js'
export { longModeTablesSize, type LongModeOptions, type Mode, type ModeOptions, type ProtectedModeOptions, type RealModeOptions } from './kvm/modes.js'
export { type StatisticDescriptor, Statistics, type StatisticsLayout } from './kvm/statistics.js'
export { type Access, Guest } from './machine/guest.js'
export { type HostPage, readPagemap } from './translation/pagemap.js'
export { type AssembleOptions, assemble } from './machine/assemble.js'
