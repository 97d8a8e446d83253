import type { TestContext } from 'vitest'
import { tryReading } from '../../lib/observe/tables/reader.js'
import { needsFrames } from './needs.js'
import { skip } from './skip.js'

/** Why VMs cannot be read from outside here; null if they can. */
export const refused = tryReading()

/** To compare all three tables, a test needs BPF and frame numbers. */
export function needsAll(context: TestContext): void {
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  needsFrames(context)
}
