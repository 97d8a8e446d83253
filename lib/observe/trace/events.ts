/** Events by their meaning. Guest-virtual addresses, RIP and other values of the processor are bigints; all other addresses are numbers. */

import type { Gpa, Hva } from '../../abi/addresses.js'
import type { MappingChanged, MemslotChanged, MemslotRow } from '../../memory/changes.js'
import type { EptQualification, NestedPageFault } from '../../x86/qualification.js'
import type { Spte } from '../../x86/spte.js'

/** The fields that every event has. */
export interface Happening {
  /** The time in nanoseconds of CLOCK_MONOTONIC, the clock of process.hrtime(). */
  time: number
  /** The time in milliseconds since the trace began. */
  elapsed: number
  process: number
  thread: number
  cpu: number
  /** The event that caused this one, if it is known. */
  cause?: TraceEvent
  /** The tracepoint's own fields, with those of 8 bytes as bigints; empty for the library's own calls. It keeps the drained memory alive. */
  readonly raw: Record<string, number | bigint>
}

/** The kind of the guest's access. */
export type AccessKind = 'read' | 'write' | 'fetch'

/** The guest touched a GPA in a way that the second stage does not allow: an EPT violation, or a nested page fault. */
export interface ViolationEvent extends Happening {
  kind: 'violation'
  vcpu: number
  gpa: Gpa
  access: AccessKind
  /** Whether an entry was present, but forbade the access. */
  present: boolean
  rip: bigint
  qualification: EptQualification | NestedPageFault
}
/** A fault in the guest's own page tables, which is seen only if KVM shadows them. */
export interface GuestFaultEvent extends Happening {
  kind: 'guest-fault'
  vcpu: number
  /** The guest-virtual address of the access. */
  address: bigint
  errorCode: bigint
  rip: bigint
}
/** The guest touched an entry that faults on purpose, for MMIO: EPT_MISCONFIG. */
export interface MisconfigEvent extends Happening {
  kind: 'misconfig'
  vcpu: number
  gpa: Gpa | null
  rip: bigint
}
/** KVM wrote an entry. An `mmio` entry makes later accesses fault fast. */
export interface SpteSetEvent extends Happening {
  kind: 'spte-set'
  gfn: number
  level: number
  spte: bigint
  decoded: Spte
  mmio: boolean
}
/** An entry of the TDP MMU changed. */
export interface SpteChangeEvent extends Happening {
  kind: 'spte-change'
  gfn: number
  level: number
  old: bigint
  new: bigint
  before: Spte
  after: Spte
  addressSpace: number
}
/** Every entry of the VM became obsolete at once. */
export interface ZapAllEvent extends Happening {
  kind: 'zap-all'
}
/** KVM dropped a table page with all its entries. */
export interface ZapPageEvent extends Happening {
  kind: 'zap-page'
  gfn: number
  level: number
}
/** KVM split a huge entry into small ones. */
export interface HugeSplitEvent extends Happening {
  kind: 'huge-split'
  gfn: number
  level: number
}
/** The guest-physical addresses in one slot that belong to a range of host-virtual addresses. */
export interface HitRange {
  slot: number
  gpa: Gpa
  size: number
}
/** The host is about to change the memory at these HVAs, and KVM drops the entries for it. */
export interface NotifierUnmapEvent extends Happening {
  kind: 'notifier-unmap'
  hva: Hva
  size: number
  /** The GPAs that the call hits, or null if the memslots are another process's and not known. */
  gpas: HitRange[] | null
}
/** The host asked whether pages were used recently. */
export interface NotifierAgeEvent extends Happening {
  kind: 'notifier-age'
  hva: Hva
  size: number
  /** The GPAs that the call hits, or null if the memslots are another process's and not known. */
  gpas: HitRange[] | null
}
/** The processor left the guest. */
export interface ExitEvent extends Happening {
  kind: 'exit'
  vcpu: number
  reason: number
  rip: bigint
}
/** The processor entered the guest. */
export interface EntryEvent extends Happening {
  kind: 'entry'
  vcpu: number
  rip: bigint
}
/** KVM emulated an access to the memory of a device. */
export interface MmioEvent extends Happening {
  kind: 'mmio'
  access: 'read' | 'write' | 'unsatisfied-read'
  gpa: Gpa
  length: number
  value: bigint
}
/** KVM emulated a port access. */
export interface PioEvent extends Happening {
  kind: 'pio'
  access: 'read' | 'write'
  port: number
  size: number
  count: number
}
/** KVM emulated an instruction. */
export interface EmulateEvent extends Happening {
  kind: 'emulate'
  rip: bigint
  failed: boolean
}
/** The dirty ring got a page, was reset, or was full. */
export interface DirtyRingEvent extends Happening {
  kind: 'dirty-ring'
  did: 'push' | 'reset' | 'full'
}
/** This library changed a memslot. */
export interface MemslotEvent extends Happening {
  kind: 'memslot'
  did: MemslotChanged['did']
  before: MemslotRow | null
  after: MemslotRow | null
  duration: number
}
/** This library changed the memory at HVAs. */
export interface MappingEvent extends Happening {
  kind: 'mapping'
  did: MappingChanged['did']
  hva: Hva
  size: number
  duration: number
}

/** KVM's own counters grew or fell between two drains. This shows how much happened, even if the events of it were lost. */
export interface StatisticsEvent extends Happening {
  kind: 'statistics'
  /** The owner of the counters: `kvm-1234`, `kvm-1234/vcpu-0`. */
  of: string
  /** The time of the earlier reading; `time` is the time of the later one. */
  since: number
  /** The difference of each counter that changed; for a histogram, the difference of each bucket. */
  changes: Record<string, number | number[]>
}
/** A record of a tracepoint that was asked for by name. Its fields are in `raw`. */
export interface RawEvent extends Happening {
  kind: 'raw'
  /** The name of the tracepoint: `kvm/kvm_userspace_exit`. */
  tracepoint: string
}

/** One event. Its `kind` tells which it is. */
export type TraceEvent =
  | ViolationEvent
  | GuestFaultEvent
  | MisconfigEvent
  | SpteSetEvent
  | SpteChangeEvent
  | ZapAllEvent
  | ZapPageEvent
  | HugeSplitEvent
  | NotifierUnmapEvent
  | NotifierAgeEvent
  | ExitEvent
  | EntryEvent
  | MmioEvent
  | PioEvent
  | EmulateEvent
  | DirtyRingEvent
  | MemslotEvent
  | MappingEvent
  | StatisticsEvent
  | RawEvent

/** The name of a kind of event. */
export type TraceKind = TraceEvent['kind']
