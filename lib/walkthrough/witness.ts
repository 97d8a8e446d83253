/** Records what the kernel does during a step of the walkthrough, and checks whether it happens in the order that the thread gives. */
import type { Gpa } from '../abi/addresses.js'
import { hex } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import type { Vm } from '../kvm/vm/vm.js'
import type { Mmu } from '../observe/host.js'
import { trace } from '../observe/observed.js'
import type { TraceEvent } from '../observe/trace/events.js'
import type { Trace } from '../observe/trace/trace.js'

/** One link of a story: its name, and a function that recognizes the event that proves it. */
export type Link = readonly [name: string, proves: (event: TraceEvent) => boolean]

const gfnOf = (gpa: Gpa) => Math.floor(gpa / 4096)
const hit = (gpas: readonly { gpa: Gpa; size: number }[] | null, gpa: Gpa) =>
  gpas?.some((range) => gpa >= range.gpa && gpa < range.gpa + range.size) ?? false

/** The links from which the stories are made. */
export const links = {
  call: (kind: 'memslot' | 'mapping', did: string): Link => [`${kind} ${did}`, (event) => event.kind === kind && event.did.startsWith(did)],
  notified: (gpa: Gpa): Link => [`notifier unmap of gpa ${hex(gpa)}`, (event) => event.kind === 'notifier-unmap' && hit(event.gpas, gpa)],
  dropped: (gpa: Gpa): Link => [
    `entry of gpa ${hex(gpa)} dropped`,
    (event) => event.kind === 'spte-change' && event.level === 1 && event.gfn === gfnOf(gpa) && !event.after.present
  ],
  zapped: (): Link => [
    'entries zapped',
    (event) => event.kind === 'zap-all' || event.kind === 'zap-page' || (event.kind === 'spte-change' && !event.after.present)
  ],
  violated: (gpa: Gpa): Link => [`violation at gpa ${hex(gpa)}`, (event) => event.kind === 'violation' && gfnOf(event.gpa) === gfnOf(gpa)],
  set: (gpa: Gpa): Link => [
    `entry of gpa ${hex(gpa)} set`,
    (event) => event.kind === 'spte-set' && event.gfn === gfnOf(gpa) && event.decoded.present
  ],
  mmio: (gpa: Gpa): Link => [`mmio at gpa ${hex(gpa)}`, (event) => event.kind === 'mmio' && event.gpa === gpa]
}

/** Traces a VM if the host allows it. */
export class Witness implements Disposable {
  /** Why no events are seen, if that is so. */
  readonly note: string | undefined
  readonly #trace: Trace | undefined
  readonly #tdp: boolean

  constructor(vm: Vm, mmu: Mmu, tdpMmu: boolean) {
    this.#tdp = tdpMmu && (mmu === 'ept' || mmu === 'npt')
    try {
      this.#trace = trace(vm)
    } catch (error) {
      if (!(error instanceof KvmError)) throw error
      this.note = `events are not shown: ${error.message}`
    }
  }

  /** Returns the events since the last call. */
  take(): { events: TraceEvent[]; lost: number } {
    return { events: this.#trace?.drain() ?? [], lost: this.#trace?.lost ?? 0 }
  }

  /**
   * Returns the links of a story that this host can show. Without a two-dimensional-paging MMU there is no event for a violation, nor for the end of
   * a single entry. If events are not seen, it returns none.
   */
  story(told: readonly Link[]): readonly Link[] {
    if (!this.#trace) return []
    return this.#tdp ? told : told.filter(([name]) => !name.startsWith('violation') && !name.endsWith('dropped'))
  }

  [Symbol.dispose](): void {
    this.#trace?.close()
  }
}

/** Returns the first link that is missing or out of order, or undefined if all are in order. */
export function missingLink(events: readonly TraceEvent[], story: readonly Link[]): string | undefined {
  let from = 0
  for (const [name, proves] of story) {
    const found = events.findIndex((event, index) => index >= from && proves(event))
    if (found < 0) return name
    from = found + 1
  }
  return undefined
}
