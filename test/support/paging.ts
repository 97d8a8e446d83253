import { Mapping } from 'node-kvm'
import type { TestContext } from 'vitest'
import { skip } from './skip.js'

/** Skips where the process may not serve faults of the kernel. */
export function needPaging(context: TestContext): void {
  using probe = Mapping.anonymous(4096)
  try {
    probe.onMissing(() => null).close()
  } catch (error) {
    skip(context, (error as Error).message)
  }
}
