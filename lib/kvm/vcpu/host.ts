/** What a vCPU needs of its VM. `Vm` implements this; the two modules do not import each other. */
import type { Memslots } from '../../memory/memslots.js'
import type { Coalescing } from '../vm/coalesced.js'
import type { GuestMemory } from '../vm/guest-memory.js'

/** The VM of a vCPU. */
export interface VcpuHost {
  /** The table of the VM's memslots. */
  readonly memslots: Memslots
  /** The VM's memory, by guest-physical address. */
  readonly memory: GuestMemory
  /** Whether the VM was closed. */
  readonly closed: boolean
}

/** @internal The coalesced writes of a VM, once there are any. Each run looks at them. */
export interface WriteQueues {
  writes: Coalescing | undefined
}
