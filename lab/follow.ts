/** Waits for a machine while it runs. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { GuestConsole, Stage } from './console.js'
import { LabError, outOfTime } from './errors.js'
import type { Machine } from './machine.js'

/** From the guest's last word to the emulator's end. */
const lingerMs = { ended: 10_000, dead: 1000 }
const pollMs = 50

interface Options {
  /** Seconds. */
  limit: number
  /** Wait no longer than to this stage. */
  until?: Stage
  /** Told once, when the command begins. */
  onRunning?: () => void
}

/** Passes on what the guest prints until the emulator ends, or lingers after the guest has ended. */
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
    if (Date.now() > deadline) throw new LabError(`the limit of ${limit} seconds is over (--timeout sets another)`, outOfTime)
  }
}
