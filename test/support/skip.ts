import type { TestContext } from 'vitest'

/** Skips with a reason that the report carries, so that it can be printed and counted. */
export function skip(context: TestContext, reason: string): never {
  Object.assign(context.task.meta, { skipped: reason })
  return context.skip(reason)
}
