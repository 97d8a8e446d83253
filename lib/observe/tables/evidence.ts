/** What an observation is based on. */

/** Says where the parts of an observation come from, and what it lacks. */
export interface Evidence {
  /** The source of the memslots: BPF in the kernel, this library's own table of its own VM, or only the process's descriptors. */
  source: 'bpf' | 'memslots' | 'procfs'
  /** The source of the host page tables. */
  host: 'pagemap' | null
  /** The source of the second stage: its tables themselves, or a mirror that trace events keep up to date. */
  secondStage: 'bpf' | 'events' | null
  /** Whether the memslots changed during every attempt to read them. The result then never was the whole table at any moment. */
  torn: boolean
  /** How many page tables of the second stage could not be copied whole; for a mirror, how many events found no room. */
  lost: number
  /** How often it was read until it was consistent, or the reader gave up. */
  attempts: number
  /**
   * How often the MMU notifier dropped pages meanwhile (for a mirror, how many entries changed). If it is 0, the second and the third table are of
   * one moment.
   */
  invalidations: number
  /** What could not be seen, and how to make it visible. */
  missing: string[]
}

export function evidence(values: Partial<Evidence> & Pick<Evidence, 'source'>): Evidence {
  return { host: null, secondStage: null, torn: false, lost: 0, attempts: 1, invalidations: 0, missing: [], ...values }
}
