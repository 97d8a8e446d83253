/** What an observation rests on. */

/** Says where an observation comes from, and what it missed. */
export interface Evidence {
  /** Of the memslots: read in the kernel by BPF, this library's own table of its own VM, or only the process's descriptors. */
  source: 'bpf' | 'memslots' | 'procfs'
  /** Of the host page tables. */
  host: 'pagemap' | null
  /** Of the second stage: its tables themselves, or a mirror of them kept up from trace events. */
  secondStage: 'bpf' | 'events' | null
  /** The memslots changed while they were read, each time they were read: what is shown never was the whole at any moment. */
  torn: boolean
  /** Page tables of the second stage that could not be copied whole; of a mirror, events that found no room. */
  lost: number
  /** How often it was read before it was consistent, or given up. */
  attempts: number
  /** How often the MMU notifier took pages back meanwhile (of a mirror, how many entries changed): with 0, the second and the third table are of one moment. */
  invalidations: number
  /** What could not be seen, and what would make it seen. */
  missing: string[]
}

export function evidence(values: Partial<Evidence> & Pick<Evidence, 'source'>): Evidence {
  return { host: null, secondStage: null, torn: false, lost: 0, attempts: 1, invalidations: 0, missing: [], ...values }
}
