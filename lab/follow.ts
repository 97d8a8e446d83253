/** Waits for a machine while it runs. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { GuestConsole, Stage } from './console.js'
import { LabError, outOfTime } from './errors.js'
import type { Machine } from './machine.js'

/** How long the emulator may take to end after the guest's last output. */
const lingerMs = { ended: 10_000, dead: 1000 }
const pollMs = 50

interface Options {
  /** In seconds. */
  limit: number
  /** Wait no longer than until this stage. */
  until?: Stage
  /** Called once, when the command begins. */
  onRunning?: () => void
}

/** Passes on the guest's output until the emulator ends, or until it lingers too long after the guest has ended. */
export async function follow(machine: Machine, screen: GuestConsole, { limit, until, onRunning }: Options): Promise<void> {
  const deadline = Date.now() + limit * 1000
  let giveUp = Number.POSITIVE_INFINITY
  while (!machine.closed) {
    await sleep(pollMs)
    const before = screen.stage
    const stage = screen.poll()
    if (stage === until) return
    if (stage !== before && stage === 'running') onRunning?.()
    if (stage !== before && (stage === 'ended' || stage === 'dead')) giveUp = Date.now() + lingerMs[stage]
    if (Date.now() > giveUp) return
    if (Date.now() > deadline) throw new LabError(`the limit of ${limit} seconds is over (--timeout sets another limit)`, outOfTime)
  }
}
