import type { TestContext } from 'vitest'

/** KVM_CAP_GUEST_MEMFD is 0 for VMs of type 0. */
export const withoutGuestMemfd = 'this kernel has no guest_memfd for ordinary VMs (KVM_CAP_GUEST_MEMFD)'

/** Skips a test with a reason that the report carries, so that it can be printed and counted. */
export function skip(context: TestContext, reason: string): never {
  Object.assign(context.task.meta, { skipped: reason })
  return context.skip(reason)
}

/** The lane of the lab in which the suite runs; undefined outside of the lab. */
export const inLab = process.env['NODE_KVM_LAB']

/**
 * In lane ept each start of Node, and of a Worker with the library, takes ten seconds, so tests that do not depend on the processor run elsewhere.
 */
export function skipWhereSlow(context: TestContext): void {
  if (inLab?.startsWith('ept')) skip(context, 'the same on every host, and slow in this lane')
}

/** For tests that start many threads or processes and do not depend on the processor. */
export function skipInLab(context: TestContext): void {
  if (inLab) skip(context, 'the same on every host, and slow in the lab')
}
