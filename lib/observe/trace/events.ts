/** What happened, by what it means. Guest-virtual addresses, RIP, and values of the processor's are bigints; all other addresses are numbers. */

import type { Gpa, Hva } from '../../abi/addresses.js'
import type { MappingChanged, MemslotChanged, MemslotRow } from '../../memory/changes.js'
import type { EptQualification, NestedPageFault } from '../../x86/qualification.js'
import type { Spte } from '../../x86/spte.js'

/** What every event has. */
export interface Happening {
  /** Nanoseconds of CLOCK_MONOTONIC, the clock of process.hrtime(). */
  time: number
  /** Milliseconds since the trace began. */
  elapsed: number
  process: number
  thread: number
  cpu: number
  /** What made it happen, where that is known. */
  cause?: TraceEvent
  /** The tracepoint's own fields, those of 8 bytes as bigints; empty for the library's own calls. Keeps the drained memory alive. */
  readonly raw: Record<string, number | bigint>
}

/** What the guest tried. */
export type AccessKind = 'read' | 'write' | 'fetch'

/** The guest touched a GPA that the second stage does not map so: an EPT violation, or a nested page fault. */
export interface ViolationEvent extends Happening {
  kind: 'violation'
  vcpu: number
  gpa: Gpa
  access: AccessKind
  /** An entry was there, but forbade the access. */
  present: boolean
  rip: bigint
  qualification: EptQualification | NestedPageFault
}
/** A fault of the guest's own page tables, seen where KVM shadows them. */
export interface GuestFaultEvent extends Happening {
  kind: 'guest-fault'
  vcpu: number
  /** Guest-virtual. */
  address: bigint
  errorCode: bigint
  rip: bigint
}
/** An entry made to fault on purpose, for MMIO, did: EPT_MISCONFIG. */
export interface MisconfigEvent extends Happening {
  kind: 'misconfig'
  vcpu: number
  gpa: Gpa | null
  rip: bigint
}
/** KVM wrote an entry; `mmio` entries make later accesses fault fast. */
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
/** Every entry of the VM is obsolete at once. */
export interface ZapAllEvent extends Happening {
  kind: 'zap-all'
}
/** A table page goes, with all its entries. */
export interface ZapPageEvent extends Happening {
  kind: 'zap-page'
  gfn: number
  level: number
}
/** A huge entry is split into small ones. */
export interface HugeSplitEvent extends Happening {
  kind: 'huge-split'
  gfn: number
  level: number
}
/** Guest-physical addresses that a range of host-virtual ones stands behind. */
export interface HitRange {
  slot: number
  gpa: Gpa
  size: number
}
/** The host is about to change what lies under HVAs, and KVM drops the entries there. */
export interface NotifierUnmapEvent extends Happening {
  kind: 'notifier-unmap'
  hva: Hva
  size: number
  /** null where the memslots are another process's and not known. */
  gpas: HitRange[] | null
}
/** The host asks whether pages were used lately. */
export interface NotifierAgeEvent extends Happening {
  kind: 'notifier-age'
  hva: Hva
  size: number
  /** null where the memslots are another process's and not known. */
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
/** KVM emulated an access to a device's memory. */
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
/** The dirty ring took a page, was reset, or was full. */
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
/** This library changed what lies under HVAs. */
export interface MappingEvent extends Happening {
  kind: 'mapping'
  did: MappingChanged['did']
  hva: Hva
  size: number
  duration: number
}

/** KVM's own counters grew or fell between two drains: what was to be seen, whether or not the events of it were lost. */
export interface StatisticsEvent extends Happening {
  kind: 'statistics'
  /** Whose: `kvm-1234`, `kvm-1234/vcpu-0`. */
  of: string
  /** The time of the earlier reading; `time` is that of the later. */
  since: number
  /** By how much, of those that changed; of a histogram each bucket. */
  changes: Record<string, number | number[]>
}
/** A tracepoint that was asked for by name: its fields are in `raw`. */
export interface RawEvent extends Happening {
  kind: 'raw'
  /** `kvm/kvm_userspace_exit` */
  tracepoint: string
}

/** One event; `kind` tells which. */
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
