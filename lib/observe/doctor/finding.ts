/** What a finding is, and what findings are made from. */
import { existsSync } from 'node:fs'
import type { KvmError } from '../../abi/errors.js'
import type { CapabilityName } from '../../abi/generated/capabilities.js'
import type { Host } from '../host.js'
import { asRoot, gainsNothing, inOwnNamespace } from '../privileges.js'
import type * as Probes from './probes.js'

/** One thing looked at. */
export interface Finding {
  name: string
  ok: boolean
  /** What was found, and why it is so. */
  detail: string
  /** A command that grants it, for this process's shell. */
  remedy?: string
  /** What to do about it that is no command here: in the firmware, on the machine around this one, where the container is started. */
  advice?: string
  /** What the remedy costs, or how long it holds. */
  price?: string
}

/** What findings are made from. */
export interface Situation {
  host: Host
  /** What is tried with the add-on; null where that does not load. */
  probes: typeof Probes | null
  /** Why the add-on does not load. */
  unloaded: KvmError | null
  /** Values of KVM_CHECK_EXTENSION; null when /dev/kvm cannot be opened. */
  capabilities: Record<CapabilityName, number> | null
}

/** Looks at one thing. Null where that would need the add-on, which is not loaded. */
export type Check = (situation: Situation) => Finding | Finding[] | null | Promise<Finding | null>

export const found = (name: string, detail: string): Finding => ({ name, ok: true, detail })
export const lacking = (name: string, detail: string, how: Pick<Finding, 'remedy' | 'advice' | 'price'>): Finding => ({
  name,
  ok: false,
  detail,
  ...how
})

/** A command that takes root: a remedy where it can be run from here, else advice. */
export function byRoot(command: string, price?: string): Pick<Finding, 'remedy' | 'advice' | 'price'> {
  const cost = price === undefined ? {} : { price }
  if (inOwnNamespace('user')) return { advice: `outside of this user namespace, as root: ${command}`, ...cost }
  if (gainsNothing() && process.getuid?.() !== 0)
    return { advice: `in another session, as this one can gain no privileges (no_new_privs): ${asRoot(command)}`, ...cost }
  return { remedy: asRoot(command), ...cost }
}

export const hasSysfs = () => existsSync('/sys/module')

/** What to do where a trial failed for want of descriptors: that says nothing of what was tried. */
export const exhaustedAdvice = ({ code, errno }: NonNullable<Probes.Refusal>): Pick<Finding, 'advice'> | null =>
  code === 'limit' && (errno === 'EMFILE' || errno === 'ENFILE') ? { advice: 'see open files below: it was not seen whether it works' } : null

/** The first part of a message of the library: what happened, without its advice. */
export const whatHappened = ({ message }: NonNullable<Probes.Refusal>): string => message.split('; ', 1)[0] as string
/** The rest of such a message: its advice. A finding that knows the cause says it more exactly. */
export const itsAdvice = ({ message }: NonNullable<Probes.Refusal>): string => message.split('; ').slice(1).join('; ') || 'see dmesg | tail'
