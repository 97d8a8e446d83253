/** The limits that the host sets for a VM. */
import { inspect } from 'node:util'
import { guestPhysicalLimit } from '../../memory/guest-physical.js'
import type { Capabilities } from '../capabilities.js'

/** The limits that the host sets for a VM. */
export interface VmLimits {
  memslots: number
  vcpus: number
  /** Every vCPU id is below this. */
  vcpuIds: number
  /** The size of a vCPU's shared pages in bytes. */
  runPageSize: number
  /** The first guest-physical address that no memslot may reach. */
  readonly guestPhysicalLimit: number
}

// The value is the same for all VMs of the host, and computing it reads files of /proc and /sys.
let guestPhysical: number | undefined

/** @internal */
export function limitsOf(capabilities: Capabilities, runPageSize: number): VmLimits {
  // If KVM reports no maximum, it is 4 (api.rst 4.7).
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
