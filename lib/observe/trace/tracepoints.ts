/** Turns KVM's tracepoints into events: which tracepoints there are, which kinds each gives, and how its records are read. */
import { processorExits } from '../../abi/generated/names.js'
import type { AccessKind, MisconfigEvent, TraceEvent, TraceKind } from './events.js'
import { type Format, lowField, numberField, type Read, wideField } from './format.js'
import { type Recorded, RecordedChange, RecordedFault, RecordedRaw, RecordedSet } from './recorded.js'
import type { Rows } from './rows.js'

/** What decoders share: for each thread its last exit, and the memslots of the moment. */
export interface DecodeContext {
  wanted: ReadonlySet<TraceKind>
  /** The memslots, or null if they belong to another process and were not given yet. */
  rows: Rows | null
  /** Whether to keep notifier calls that hit no memslot. */
  everywhere: boolean
  faulting: Map<number, { isa: number; rip: bigint; vcpu: number }>
  misconfigs: Map<number, MisconfigEvent>
}

/** Fills an event with the fields of its kind. If it returns false, the event is dropped. */
export type Fill = (event: any, view: DataView, at: number) => boolean

export interface Tracepoint {
  event: string
  kinds: readonly TraceKind[]
  /** Returns a filter, in the kernel's filter language, for events that are worth a record. */
  filter?: (wanted: ReadonlySet<TraceKind>) => string
  /** The fields that hold an HVA range. */
  range?: readonly [start: string, end: string]
  /** The class of the events, unless it is {@link Recorded}. */
  record?: typeof Recorded
  decoder(format: Format, context: DecodeContext): Fill
}

// Exit reasons: Intel SDM volume 3, appendix C; AMD APM volume 2, appendix C. `isa` is KVM_ISA_VMX or KVM_ISA_SVM of arch/x86/kvm/trace.h.
const vmx = 1
const { EXIT_REASON_EPT_VIOLATION: eptViolation, EXIT_REASON_EPT_MISCONFIG: eptMisconfig, SVM_EXIT_NPF: nestedPageFault } = processorExits

const mmioAccess = ['unsatisfied-read', 'read', 'write'] as const
// SPTE_MMU_PRESENT_MASK, bit 11.
const presentMark = 0x800
const spteFilter = '(old_spte & 0x800) || (new_spte & 0x800)'

function accessOf(intel: boolean, errorCode: number): AccessKind {
  if (errorCode & 2) return 'write'
  return errorCode & (intel ? 4 : 16) ? 'fetch' : 'read'
}

const exits: Tracepoint = {
  event: 'kvm/kvm_exit',
  kinds: ['exit', 'violation', 'misconfig'],
  filter: (wanted) =>
    wanted.has('exit') ? '' : `exit_reason == ${eptViolation} || exit_reason == ${eptMisconfig} || exit_reason == ${nestedPageFault}`,
  decoder(format, { wanted, faulting, misconfigs }) {
    const [reason, isa, rip, vcpu] = [
      numberField(format, 'exit_reason'),
      numberField(format, 'isa'),
      wideField(format, 'guest_rip'),
      numberField(format, 'vcpu_id')
    ]
    return (event, view, at) => {
      const number = reason(view, at)
      const instructionSet = isa(view, at)
      faulting.delete(event.thread)
      if (instructionSet === vmx ? (number & 0xffff) === eptViolation : number === nestedPageFault)
        faulting.set(event.thread, { isa: instructionSet, rip: rip(view, at), vcpu: vcpu(view, at) })
      const misconfigured = instructionSet === vmx && (number & 0xffff) === eptMisconfig && wanted.has('misconfig')
      if (!misconfigured && !wanted.has('exit')) return false
      event.kind = misconfigured ? 'misconfig' : 'exit'
      event.vcpu = vcpu(view, at)
      event.rip = rip(view, at)
      if (misconfigured) misconfigs.set(event.thread, Object.assign(event, { gpa: null }))
      else event.reason = number
      return true
    }
  }
}

const pageFaults: Tracepoint = {
  event: 'kvm/kvm_page_fault',
  kinds: ['violation', 'guest-fault'],
  record: RecordedFault,
  decoder(format, { wanted, faulting }) {
    const [gpa, error] = [numberField(format, 'fault_address'), lowField(format, 'error_code')]
    const [address, errorCode] = [wideField(format, 'fault_address'), wideField(format, 'error_code')]
    const [rip, vcpu] = [wideField(format, 'guest_rip'), numberField(format, 'vcpu_id')]
    return (event, view, at) => {
      const fault = faulting.get(event.thread)
      event.kind = fault ? 'violation' : 'guest-fault'
      event.vcpu = fault ? fault.vcpu : vcpu(view, at)
      event.rip = fault ? fault.rip : rip(view, at)
      if (!fault) {
        event.address = address(view, at)
        event.errorCode = errorCode(view, at)
        return wanted.has('guest-fault')
      }
      const intel = fault.isa === vmx
      const code = error(view, at)
      event.gpa = gpa(view, at)
      event.access = accessOf(intel, code)
      event.present = (code & (intel ? 0x38 : 1)) !== 0
      faulting.delete(event.thread)
      return wanted.has('violation')
    }
  }
}

const mmioFaults: Tracepoint = {
  event: 'kvmmmu/handle_mmio_page_fault',
  kinds: ['misconfig'],
  decoder(format, { misconfigs }) {
    const gfn = numberField(format, 'gfn')
    return (event, view, at) => {
      const misconfig = misconfigs.get(event.thread)
      if (misconfig) misconfig.gpa = gfn(view, at) * 4096
      misconfigs.delete(event.thread)
      return false
    }
  }
}

const spteSets: Tracepoint = {
  event: 'kvmmmu/kvm_mmu_set_spte',
  kinds: ['spte-set'],
  record: RecordedSet,
  decoder(format) {
    const [gfn, level] = [numberField(format, 'gfn'), numberField(format, 'level')]
    return (event, view, at) => {
      event.kind = 'spte-set'
      event.gfn = gfn(view, at)
      event.level = level(view, at)
      event.mmio = false
      return true
    }
  }
}

const mmioSptes: Tracepoint = {
  event: 'kvmmmu/mark_mmio_spte',
  kinds: ['spte-set'],
  record: RecordedSet,
  decoder(format) {
    const gfn = numberField(format, 'gfn')
    return (event, view, at) => {
      event.kind = 'spte-set'
      event.gfn = gfn(view, at)
      event.level = 1
      event.mmio = true
      return true
    }
  }
}

const spteChanges: Tracepoint = {
  event: 'kvmmmu/kvm_tdp_mmu_spte_changed',
  kinds: ['spte-change'],
  record: RecordedChange,
  // When a table page goes, KVM freezes its empty entries, too, which makes thousands of changes from nothing to nothing.
  filter: () => spteFilter,
  decoder(format) {
    const [gfn, level, space] = [numberField(format, 'gfn'), numberField(format, 'level'), numberField(format, 'as_id')]
    const [was, is] = [lowField(format, 'old_spte'), lowField(format, 'new_spte')]
    return (event, view, at) => {
      event.kind = 'spte-change'
      event.gfn = gfn(view, at)
      event.level = level(view, at)
      event.addressSpace = space(view, at)
      event.setPresence((was(view, at) & presentMark) !== 0, (is(view, at) & presentMark) !== 0)
      return true
    }
  }
}

const tableLevel = (role: number) => role & 15

const zapPages: Tracepoint = {
  event: 'kvmmmu/kvm_mmu_prepare_zap_page',
  kinds: ['zap-page'],
  decoder(format) {
    const [gfn, role] = [numberField(format, 'gfn'), numberField(format, 'role')]
    return (event, view, at) => {
      event.kind = 'zap-page'
      event.gfn = gfn(view, at)
      event.level = tableLevel(role(view, at))
      return true
    }
  }
}

const hugeSplits: Tracepoint = {
  event: 'kvmmmu/kvm_mmu_split_huge_page',
  kinds: ['huge-split'],
  decoder(format) {
    const [gfn, level] = [numberField(format, 'gfn'), numberField(format, 'level')]
    return (event, view, at) => {
      event.kind = 'huge-split'
      event.gfn = gfn(view, at)
      event.level = level(view, at)
      return true
    }
  }
}

function notifier(event: string, kind: 'notifier-unmap' | 'notifier-age', [start, end]: readonly [string, string]): Tracepoint {
  return {
    event,
    kinds: [kind],
    range: [start, end],
    decoder(format, context) {
      const [from, to] = [numberField(format, start), numberField(format, end)]
      return (event, view, at) => {
        event.kind = kind
        event.hva = from(view, at)
        event.size = start === end ? 1 : to(view, at) - event.hva
        event.gpas = context.rows?.hits(event.hva, event.size) ?? null
        return context.everywhere || event.gpas === null || event.gpas.length > 0
      }
    }
  }
}

/** How the fields of an event are read, by their names in the event. */
type Reads = Record<string, (format: Format) => Read<unknown>>
const number = (field: string) => (format: Format) => numberField(format, field)
const wide = (field: string) => (format: Format) => wideField(format, field)
/** Chooses one of two readers by whether a field is 0. */
function either<T>(field: string, whenZero: T, otherwise: T) {
  return (format: Format): Read<T> => {
    const read = numberField(format, field)
    return (view, at) => (read(view, at) === 0 ? whenZero : otherwise)
  }
}

/** Makes a tracepoint whose events need only its name and some fields. */
function simple(event: string, kind: TraceKind, fields: Reads = {}, more: object = {}): Tracepoint {
  return {
    event,
    kinds: [kind],
    decoder(format) {
      const reads = Object.entries(fields).map(([name, reader]) => [name, reader(format)] as const)
      return (event, view, at) => {
        event.kind = kind
        for (const [name, read] of reads) event[name] = read(view, at)
        Object.assign(event, more)
        return true
      }
    }
  }
}

const mmio: Tracepoint = {
  event: 'kvm/kvm_mmio',
  kinds: ['mmio'],
  decoder(format) {
    const [type, gpa, length, value] = [numberField(format, 'type'), numberField(format, 'gpa'), numberField(format, 'len'), wideField(format, 'val')]
    return (event, view, at) => {
      event.kind = 'mmio'
      event.access = mmioAccess[type(view, at)] ?? 'read'
      event.gpa = gpa(view, at)
      event.length = length(view, at)
      event.value = value(view, at)
      return true
    }
  }
}

/** All tracepoints that are used, in no order. */
export const tracepoints: readonly Tracepoint[] = [
  exits,
  pageFaults,
  mmioFaults,
  spteSets,
  mmioSptes,
  spteChanges,
  zapPages,
  hugeSplits,
  notifier('kvm/kvm_unmap_hva_range', 'notifier-unmap', ['start', 'end']),
  notifier('kvm/kvm_age_hva', 'notifier-age', ['start', 'end']),
  notifier('kvm/kvm_test_age_hva', 'notifier-age', ['hva', 'hva']),
  simple('kvmmmu/kvm_mmu_zap_all_fast', 'zap-all'),
  simple('kvm/kvm_entry', 'entry', { vcpu: number('vcpu_id'), rip: wide('rip') }),
  mmio,
  simple('kvm/kvm_pio', 'pio', { access: either('rw', 'read', 'write'), port: number('port'), size: number('size'), count: number('count') }),
  simple('kvm/kvm_emulate_insn', 'emulate', { rip: wide('rip'), failed: either('failed', false, true) }),
  simple('kvm/kvm_dirty_ring_push', 'dirty-ring', {}, { did: 'push' }),
  simple('kvm/kvm_dirty_ring_reset', 'dirty-ring', {}, { did: 'reset' }),
  simple('kvm/kvm_dirty_ring_exit', 'dirty-ring', {}, { did: 'full' })
]

/** Makes a tracepoint by its name, `kvm/kvm_userspace_exit`, whose records stay undecoded. */
export const rawTracepoint = (event: string): Tracepoint => ({
  event,
  kinds: ['raw'],
  record: RecordedRaw,
  decoder: () => (made) => {
    made.kind = 'raw'
    made.tracepoint = event
    return true
  }
})

/** The kinds that the library makes itself, without a tracepoint. */
export const ownKinds: readonly TraceKind[] = ['memslot', 'mapping', 'statistics']
/** The kinds that a trace shows by default: the events of the three tables, without each entry, exit and emulated instruction. */
export const defaultKinds: readonly TraceKind[] = [
  'violation',
  'guest-fault',
  'misconfig',
  'spte-set',
  'spte-change',
  'zap-all',
  'zap-page',
  'huge-split',
  'notifier-unmap',
  'mmio',
  'memslot',
  'mapping'
]
/** Every kind of event. */
export const allKinds: readonly TraceKind[] = [...new Set([...tracepoints.flatMap(({ kinds }) => kinds), ...ownKinds])]

/** The event type of one kind. */
export type EventOf<K extends TraceKind> = Extract<TraceEvent, { kind: K }>
