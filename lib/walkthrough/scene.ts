/** The machine of the walkthrough, and the objects that observe it. */

import type { Gpa, Hpa, Hva } from '../abi/addresses.js'
import { Kvm } from '../kvm/kvm.js'
import type { Vcpu } from '../kvm/vcpu/vcpu.js'
import type { Vm } from '../kvm/vm/vm.js'
import type { Host } from '../observe/host.js'
import { readPagemap } from '../observe/tables/pagemap.js'
import type { SecondStage } from '../observe/tables/translate.js'
import { type Access, describeAccess, Guest } from '../testing/guest.js'
import { ThirdTable } from './third-table.js'
import type { Checks, Seen, Step, StepStatistics } from './thread-step.js'
import { type Link, missingLink, Witness } from './witness.js'

/** The parts of a step that describe it. */
type Story = Pick<Step, 'name' | 'did' | 'means' | 'gpa' | 'hva'>

export class Scene implements Disposable {
  readonly host: Host
  readonly kvm = Kvm.open()
  readonly vm: Vm = this.kvm.createVm()
  readonly thirdTable: ThirdTable
  readonly witness: Witness
  readonly guest: Guest
  readonly #vcpu: Vcpu

  constructor(host: Host) {
    this.host = host
    this.guest = Guest.create(this.vm)
    this.#vcpu = this.guest.vcpu
    this.thirdTable = new ThirdTable(this.vm)
    this.witness = new Witness(this.vm, host.mmu, host.tdpMmu)
  }

  /** What could not be shown, and why. */
  get notes(): string[] {
    return [this.thirdTable.note, this.witness.note].filter((note) => note !== undefined)
  }

  /** Returns the physical address behind an HVA, or null if the process may not know it. */
  frame(hva: Hva): Hpa | null {
    return readPagemap(hva)[0]?.hpa ?? null
  }

  /** Returns the third table's entry for a GPA, if it may be read. */
  entryAt(gpa: Gpa): SecondStage | undefined {
    return this.thirdTable.shown ? this.thirdTable.at(gpa).secondStage : undefined
  }

  #pages4k = () => this.vm.stats.read()['pages_4k'] as number | undefined
  #pfFixed = () => this.#vcpu.stats.read()['pf_fixed'] as number | undefined

  /**
   * Reads the third table and the counters before and after a change, and after the guest's next access.
   * @param gpa the address that the step observes; `from` is the address before a move
   * @param change makes the host's change
   * @param look makes the guest's next access
   */
  watch({ gpa, from = gpa }: { gpa: Gpa; from?: Gpa }, change: () => void, look: () => Access): Seen {
    const counted: StepStatistics = {}
    const count = (name: keyof StepStatistics, value: number | undefined) => {
      if (value !== undefined) counted[name] = value
    }
    const before = this.thirdTable.at(from).secondStage
    count('pfFixedBefore', this.#pfFixed())
    count('pages4kBefore', this.#pages4k())
    change()
    count('pages4kChanged', this.#pages4k())
    const changed = this.thirdTable.at(gpa).secondStage
    const access = look()
    count('pfFixedAfter', this.#pfFixed())
    count('pages4kAfter', this.#pages4k())
    const { secondStage: accessed, agrees } = this.thirdTable.at(gpa)
    return { access, stats: counted, secondStage: this.thirdTable.shown ? { before, changed, accessed } : null, agrees }
  }

  /** Adds the checks that all steps have: whether the tables agree, and whether the events came in the expected order. */
  finish(story: Story, { access, ...seen }: Seen, checks: Checks, told: readonly Link[]): Step {
    const hpa = story.hva === null ? null : this.frame(story.hva)
    if (hpa !== null) checks.agree(seen.secondStage, seen.agrees, hpa)
    const { events, lost } = this.witness.take()
    const shown = this.witness.story(told)
    if (shown.length > 0) {
      const missing = missingLink(events, shown)
      checks.add(
        `events in order: ${shown.map(([name]) => name).join(' -> ')}`,
        missing === undefined,
        `missing after the others: ${missing}; lost ${lost}`
      )
    }
    return { ...story, hpa, ...seen, access: describeAccess(access), checks: checks.list, events, lost }
  }

  [Symbol.dispose](): void {
    this.witness[Symbol.dispose]()
    this.thirdTable[Symbol.dispose]()
    this.vm.close()
    this.kvm.close()
  }
}
