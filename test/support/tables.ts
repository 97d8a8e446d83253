import type { TestContext } from 'vitest'
import { tryReading } from '../../lib/observe/tables/reader.js'
import { needsFrames } from './needs.js'
import { skip } from './skip.js'

/** Why VMs cannot be read from outside here; null where they can. */
export const refused = tryReading()

/** BPF, and frame numbers: what comparing all three tables takes. */
export function needsAll(context: TestContext): void {
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  needsFrames(context)
}
