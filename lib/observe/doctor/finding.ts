/** The findings of the doctor, and what they are made from. */
import { existsSync } from 'node:fs'
import type { KvmError } from '../../abi/errors.js'
import type { CapabilityName } from '../../abi/generated/capabilities.js'
import type { Host } from '../host.js'
import { asRoot, gainsNothing, inOwnNamespace } from '../privileges.js'
import type * as Probes from './probes.js'

/** The result of one check. */
export interface Finding {
  name: string
  ok: boolean
  /** What was found, and why. */
  detail: string
  /** A command for the shell of this process that solves the problem. */
  remedy?: string
  /** What to do if no command here solves it: in the firmware, on the machine around this one, or where the container is started. */
  advice?: string
  /** What the remedy costs, or how long it lasts. */
  price?: string
}

/** What checks look at. */
export interface Situation {
  host: Host
  /** The trials that need the add-on; null if the add-on does not load. */
  probes: typeof Probes | null
  /** The error with which the add-on did not load. */
  unloaded: KvmError | null
  /** The values of KVM_CHECK_EXTENSION, or null if /dev/kvm cannot be opened. */
  capabilities: Record<CapabilityName, number> | null
}

/** Checks one thing. It returns null if the check needs the add-on and the add-on is not loaded. */
export type Check = (situation: Situation) => Finding | Finding[] | null | Promise<Finding | null>

export const found = (name: string, detail: string): Finding => ({ name, ok: true, detail })
export const lacking = (name: string, detail: string, how: Pick<Finding, 'remedy' | 'advice' | 'price'>): Finding => ({
  name,
  ok: false,
  detail,
  ...how
})

/** Returns a command that needs root: as a remedy if it can be run from here, else as advice. */
export function byRoot(command: string, price?: string): Pick<Finding, 'remedy' | 'advice' | 'price'> {
  const cost = price === undefined ? {} : { price }
  if (inOwnNamespace('user')) return { advice: `outside of this user namespace, as root: ${command}`, ...cost }
  if (gainsNothing() && process.getuid?.() !== 0)
    return { advice: `in another session, since this one cannot gain privileges (no_new_privs): ${asRoot(command)}`, ...cost }
  return { remedy: asRoot(command), ...cost }
}

export const hasSysfs = () => existsSync('/sys/module')

/** Returns advice for a trial that failed for lack of descriptors. Such a failure says nothing about what was tried. */
export const exhaustedAdvice = ({ code, errno }: NonNullable<Probes.Refusal>): Pick<Finding, 'advice'> | null =>
  code === 'limit' && (errno === 'EMFILE' || errno === 'ENFILE') ? { advice: 'see open files below; until then this could not be tried' } : null

/** Returns the first part of a message of the library: what happened, without the advice. */
export const whatHappened = ({ message }: NonNullable<Probes.Refusal>): string => message.split('; ', 1)[0] as string
/** Returns the rest of such a message, its advice. A finding that knows the cause is more exact. */
export const itsAdvice = ({ message }: NonNullable<Probes.Refusal>): string => message.split('; ').slice(1).join('; ') || 'see dmesg | tail'
