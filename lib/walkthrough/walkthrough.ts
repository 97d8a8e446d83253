/**
 * The thread of October 2020, replayed: three tables, and what happens to the third when somebody changes one of the first two. Each step does to a
 * real guest what the thread describes, and checks what follows from it.
 */
import { KiB } from '../abi/arguments.js'
import { Mapping } from '../memory/mapping.js'
import { describeHost, type Host } from '../observe/host.js'
import { Scene } from './scene.js'
import type { Step } from './thread-step.js'
import { firstAccess, hvaRemapped, noMemslot, slotMoved, slotRebound, threadGpa, whyNotGpaIsHva } from './thread-steps.js'

/** The whole result, as `--json` prints it. */
export interface Walkthrough {
  host: Host
  steps: Step[]
  /** What could not be shown here, and why. */
  notes: string[]
  ok: boolean
}

/**
 * Runs the six steps.
 * @param onStep called after each step
 * @throws KvmError if there is no usable /dev/kvm
 * @example
 * const { ok, steps } = runWalkthrough()
 */
export function runWalkthrough(onStep: (step: Step, number: number) => void = () => {}): Walkthrough {
  const host = describeHost()
  using scene = new Scene(host)
  const notes = scene.notes
  const page = Mapping.anonymous(4 * KiB)
  const slot = scene.vm.memslots.create({ gpa: threadGpa, mapping: page })
  const steps: Step[] = []
  const plan = [
    () => firstAccess(scene, page, slot),
    () => hvaRemapped(scene, page, slot),
    () => slotMoved(scene, slot),
    () => slotRebound(scene, slot),
    () => noMemslot(scene, slot),
    () => whyNotGpaIsHva(scene, notes)
  ]
  for (const perform of plan) {
    const step = perform()
    steps.push(step)
    onStep(step, steps.length)
  }
  if (steps[0]?.hpa === null) notes.push('HPAs are not shown: frame numbers in /proc/self/pagemap need CAP_SYS_ADMIN (run with sudo)')
  return { host: describeHost(), steps, notes, ok: steps.every(({ checks }) => checks.every(({ ok }) => ok)) }
}
