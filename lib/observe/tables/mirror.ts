/** The third table without BPF: a mirror made from trace events, where these are exact. */

import { readdirSync, readlinkSync } from 'node:fs'
import { inspect } from 'node:util'
import { KvmError } from '../../abi/errors.js'
import { opening } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import { shown } from '../../abi/text.js'
import type { Memslots } from '../../memory/memslots.js'
import { describeHost, spteFormat } from '../host.js'
import { Trace } from '../trace/trace.js'
import { MirroredEntries } from './mirrored-entries.js'
import { whyNoMirror } from './refusal.js'
import type { MirrorReading, Subject } from './tables.js'

/** The VM to mirror. */
interface MirrorSubject {
  fd: number
  memslots: Memslots
  /** Returns how many entries KVM says there are, or undefined if its statistics do not say. */
  mapped(): number | undefined
}

/** Returns how many VMs this process has, by its descriptors. */
function vmsHere(): number {
  return opening('reading /proc/self/fd', () => readdirSync('/proc/self/fd')).filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === 'anon_inode:kvm-vm'
    } catch {
      return false
    }
  }).length
}

/** @internal */
export let makeMirror: (subject: MirrorSubject) => Mirror

/** @internal Returns what the mirror shows, or undefined for a value that is no Mirror. */
export let subjectOfMirror: (mirror: unknown) => Subject | undefined

/**
 * A copy of a VM's second stage that trace events keep up to date. {@link mirror} makes it, for hosts where BPF cannot read the tables themselves.
 * {@link tables} and {@link translate} show what it knows, and their `evidence.secondStage` is `events`.
 *
 * The mirror is exact about which pages are mapped, by which size of entry, and where to. It does not see the accessed and dirty bits, which the
 * processor sets by itself; a write permission that KVM gives back on its fast path (dirty logging); and what another process does to the memory of
 * this one (process_madvise(2)). `evidence` says what was lost or cannot be known.
 */
export class Mirror implements Disposable {
  readonly #trace: Trace
  readonly #entries = new MirroredEntries(spteFormat(), process.pid)
  readonly #subject: Subject
  /** Whether there were entries when the mirror began, and nothing has dropped them all since. */
  #older: boolean
  #others = 1

  static {
    makeMirror = (subject) => Mirror.#of(subject)
    subjectOfMirror = (mirror) => (typeof mirror === 'object' && mirror !== null && #subject in mirror ? mirror.#subject : undefined)
  }

  static #of(subject: MirrorSubject): Mirror {
    const why = whyNoMirror(describeHost())
    if (why) throw new KvmError('unavailable', `the second stage cannot be mirrored from events: ${why}`)
    return new Mirror(ours, subject)
  }

  private constructor(key: symbol, subject: MirrorSubject) {
    checkOurs(key, 'a Mirror', 'mirror()')
    const { fd, memslots, mapped } = subject
    this.#trace = Trace.of(
      { memslots, spteFormat: spteFormat(), processes: [process.pid] },
      { kinds: ['spte-change', 'zap-all', 'notifier-unmap', 'memslot'] }
    )
    if (this.#trace.unavailable.includes('spte-change')) {
      this.#trace.close()
      throw new KvmError('unavailable', 'the second stage cannot be mirrored: this kernel lacks the event kvmmmu:kvm_tdp_mmu_spte_changed')
    }
    try {
      this.#older = mapped() !== 0
    } catch (error) {
      this.#trace.close()
      throw error
    }
    this.#subject = { pid: process.pid, fd, own: memslots, mirror: () => this.#read() }
  }

  /** How many events found no room. If it is above 0, entries may be missing or out of date from then on. */
  get lost(): number {
    return this.#trace.lost
  }

  #read(): MirrorReading {
    if (this.#trace.closed) throw new KvmError('closed', 'this mirror is closed')
    for (const event of this.#trace.drain()) {
      this.#entries.apply(event)
      if (event.kind === 'zap-all') this.#older = false
    }
    this.#others = Math.max(this.#others, vmsHere())
    const missing = [
      ...(this.#older ? ['the second stage is known only as far as it changed since the mirror began: there were entries before'] : []),
      ...(this.#others > 1 ? [`the second stage is that of ${this.#others} VMs: events do not say which VM of a process they belong to`] : []),
      ...(this.lost > 0 ? [`the second stage may differ: ${this.lost} events were lost (read more often, or trace with a larger ring)`] : [])
    ]
    return { leaves: () => this.#entries.columns(), changes: this.#entries.changes, lost: this.lost, missing }
  }

  /** Ends the trace behind the mirror. A second call does nothing. */
  close(): void {
    this.#trace.close()
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('Mirror', { changes: this.#entries.changes, lost: this.lost, closed: this.#trace.closed })
  }
}
