/** What the host allows a VM. */
import { inspect } from 'node:util'
import { guestPhysicalLimit } from '../../memory/guest-physical.js'
import type { Capabilities } from '../capabilities.js'

/** What the host allows a VM. */
export interface VmLimits {
  memslots: number
  vcpus: number
  /** Ids lie below this. */
  vcpuIds: number
  /** Bytes of a vCPU's shared pages. */
  runPageSize: number
  /** The first guest-physical address that no memslot may reach. */
  readonly guestPhysicalLimit: number
}

// It is the host's, and reading it takes files of /proc and /sys.
let guestPhysical: number | undefined

/** @internal */
export function limitsOf(capabilities: Capabilities, runPageSize: number): VmLimits {
  // Where there is no maximum, it is 4 (api.rst 4.7).
  const limits: VmLimits = {
    memslots: capabilities.check('NR_MEMSLOTS'),
    vcpus: capabilities.check('MAX_VCPUS') || 4,
    vcpuIds: capabilities.check('MAX_VCPU_ID') || 4,
    runPageSize,
    get guestPhysicalLimit() {
      return (guestPhysical ??= guestPhysicalLimit())
    }
  }
  return Object.defineProperty(limits, inspect.custom, { value: () => ({ ...limits }) })
}
