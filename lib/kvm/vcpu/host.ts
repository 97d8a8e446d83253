/** What a vCPU needs of the VM that it belongs to. `Vm` is one; the two do not import each other. */
import type { Memslots } from '../../memory/memslots.js'
import type { Coalescing } from '../vm/coalesced.js'
import type { GuestMemory } from '../vm/guest-memory.js'

/** The VM of a vCPU. */
export interface VcpuHost {
  /** The table of its memslots. */
  readonly memslots: Memslots
  /** Its memory by guest-physical address. */
  readonly memory: GuestMemory
  /** Whether it was closed. */
  readonly closed: boolean
}

/** @internal The coalesced writes of a VM, once there are any: each run looks at them. */
export interface WriteQueues {
  writes: Coalescing | undefined
}
