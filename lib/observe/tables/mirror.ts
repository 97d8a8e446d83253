/** The third table without BPF: mirrored from trace events, where that is exact. */

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

/** What is mirrored. */
interface MirrorSubject {
  fd: number
  memslots: Memslots
  /** Entries that KVM says there are; undefined where its statistics do not say. */
  mapped(): number | undefined
}

/** VMs of this process, by its descriptors. */
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

/** @internal what it shows; undefined for what is no Mirror */
export let subjectOfMirror: (mirror: unknown) => Subject | undefined

/**
 * A VM's second stage, kept up from the events of its changes. Made by {@link mirror}, for hosts where BPF cannot read the tables
 * themselves; {@link tables} and {@link translate} show what it knows, and their `evidence.secondStage` is `events`.
 *
 * Exact are which pages are mapped, by what size of entry, and where to. Not seen: the accessed and dirty bits, which the processor sets by
 * itself; a write permission that KVM gives back on its fast path (dirty logging); what another process does to this one's memory
 * (process_madvise(2)). What was lost, or cannot be known, stands in `evidence`.
 */
export class Mirror implements Disposable {
  readonly #trace: Trace
  readonly #entries = new MirroredEntries(spteFormat(), process.pid)
  readonly #subject: Subject
  /** Entries were there when it began, and nothing has dropped them all since. */
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
      throw new KvmError('unavailable', 'the second stage cannot be mirrored: this kernel has no event kvmmmu:kvm_tdp_mmu_spte_changed')
    }
    try {
      this.#older = mapped() !== 0
    } catch (error) {
      this.#trace.close()
      throw error
    }
    this.#subject = { pid: process.pid, fd, own: memslots, mirror: () => this.#read() }
  }

  /** Events that found no room: with more than 0, entries may be missing or stale from then on. */
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
      ...(this.#older ? ['the second stage is known only as far as it changed since the mirror began: entries were there already'] : []),
      ...(this.#others > 1 ? [`the second stage is that of ${this.#others} VMs: events do not say which VM of a process they are of`] : []),
      ...(this.lost > 0 ? [`the second stage may differ: ${this.lost} events were lost (read more often, or trace with a larger ring)`] : [])
    ]
    return { leaves: () => this.#entries.columns(), changes: this.#entries.changes, lost: this.lost, missing }
  }

  /** Ends the trace behind it. A second call does nothing. */
  close(): void {
    this.#trace.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('Mirror', { changes: this.#entries.changes, lost: this.lost, closed: this.#trace.closed })
  }
}
