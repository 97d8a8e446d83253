/** The steps of the walkthrough, and the checks in them. */
import type { Gpa, Hpa, Hva } from '../abi/addresses.js'
import { hex } from '../abi/arguments.js'
import type { SecondStage } from '../observe/tables/translate.js'
import type { TraceEvent } from '../observe/trace/events.js'
import { type Access, describeAccess } from '../testing/guest.js'

/** One statement that must hold. */
export interface Check {
  name: string
  ok: boolean
  /** What was seen instead, if the check failed. */
  seen?: string
}

/** Second-stage counters before and after the step: faults that KVM fixed, and pages mapped. They are absent if the kernel has no such statistic. */
export interface StepStatistics {
  pfFixedBefore?: number
  pfFixedAfter?: number
  pages4kBefore?: number
  pages4kAfter?: number
  /** The counter right after the host's change, before the guest's next access. */
  pages4kChanged?: number
}

/** The third table's entry for the step's GPA at three moments: before the host's change, after it, and after the guest's next access. */
export interface StepEntries {
  before: SecondStage
  changed: SecondStage
  accessed: SecondStage
}

/** One step: the three tables after it, and the checks. */
export interface Step {
  name: string
  /** What the step did, in one line. */
  did: string
  /** What the thread says about it. */
  means: string
  gpa: Gpa
  /** The HVA, or null if no memslot covers the GPA. */
  hva: Hva | null
  /** The HPA, or null without the privilege to see frame numbers, or without a page. */
  hpa: Hpa | null
  /** The entries of EPT, NPT or the shadow pages, or null if they may not be read; {@link Walkthrough.notes} then has the reason. */
  secondStage: StepEntries | null
  /** Whether both ways lead to the same page after the access: GPA to HVA to HPA, and GPA to HPA. It is null if one of them is absent or hidden. */
  agrees: boolean | null
  /** The result of the guest's access: the word that was read, or the exit. */
  access: string
  stats: StepStatistics
  checks: Check[]
  /** The events of the kernel during the step; empty if tracepoints may not be used. */
  events: TraceEvent[]
  /** How many events were missed. */
  lost: number
}

/** The measurements around a step. */
export interface Seen extends Pick<Step, 'stats' | 'secondStage' | 'agrees'> {
  access: Access
}

const entryText = (entry: SecondStage) => (entry.present ? `hpa ${hex(entry.hpa)}` : entry.reason)

/** Collects the checks of one step. */
export class Checks {
  readonly list: Check[] = []
  add(name: string, ok: boolean, seen: unknown = ''): void {
    this.list.push(ok ? { name, ok } : { name, ok, seen: String(seen) })
  }
  same(name: string, seen: number | bigint | null, expected: number | bigint | null): void {
    this.add(name, seen === expected, `${seen === null ? null : hex(seen)}, not ${expected === null ? null : hex(expected)}`)
  }
  reads(name: string, access: Access, expected: bigint): void {
    this.add(name, access.reason === 'done' && access.value === expected, describeAccess(access))
  }
  mmio(name: string, access: Access, gpa: Gpa): void {
    this.add(name, access.reason === 'mmio' && access.gpa === gpa, describeAccess(access))
  }
  /** Checks the counter of fixed faults, if the kernel has it. */
  faulted({ stats: { pfFixedBefore, pfFixedAfter } }: Seen): void {
    if (pfFixedBefore !== undefined && pfFixedAfter !== undefined)
      this.add('the access took a fault that KVM fixed: pf_fixed rose', pfFixedAfter > pfFixedBefore, `${pfFixedBefore} -> ${pfFixedAfter}`)
  }
  /** Checks that the entry was there, and that the host's change dropped it: by the table itself, and by the counter of its pages. */
  dropped(what: string, seen: Seen): void {
    const { pages4kBefore, pages4kChanged } = seen.stats
    if (seen.secondStage) this.add('the third table had an entry', seen.secondStage.before.present, entryText(seen.secondStage.before))
    this.absent(`${what} dropped it, before the guest's next access`, seen.secondStage?.changed)
    if (pages4kBefore !== undefined && pages4kChanged !== undefined)
      this.add('pages_4k fell', pages4kChanged < pages4kBefore, `${pages4kBefore} -> ${pages4kChanged}`)
  }
  /** Checks that there is no entry, if the third table may be read. */
  absent(name: string, entry: SecondStage | undefined): void {
    if (entry) this.add(name, !entry.present, entryText(entry))
  }
  /** Checks that the tables agree, if all three may be read. */
  agree(secondStage: StepEntries | null, agrees: boolean | null, hpa: Hpa): void {
    if (!secondStage) return
    this.add(
      'after the access memslot (GPA -> HVA) + pagemap (HVA -> HPA) == second stage (GPA -> HPA)',
      agrees === true,
      `${entryText(secondStage.accessed)}, not hpa ${hex(hpa)}`
    )
  }
}
