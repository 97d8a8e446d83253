/** `node-kvm walkthrough`: the six steps, each as the thread prints its tables. */
import { hex } from '../abi/arguments.js'
import { runWalkthrough, type Step, type StepStatistics } from '../experiments/walkthrough.js'
import { timeline } from '../trace/timeline.js'
import { command, laneUsage, refuseWords } from './command.js'
import { paint } from './paint.js'

const arrow = (from: number | null, to: number | null, absent: string) =>
  from === null ? absent : `${hex(from).padEnd(16)} -> ${to === null ? absent : hex(to)}`

function counters({ pfFixedBefore, pfFixedAfter, pages4kBefore, pages4kChanged, pages4kAfter }: StepStatistics): string {
  const parts = []
  if (pages4kBefore !== undefined) parts.push(`pages_4k ${pages4kBefore} -> ${pages4kChanged} -> ${pages4kAfter}`)
  if (pfFixedBefore !== undefined) parts.push(`pf_fixed ${pfFixedBefore} -> ${pfFixedAfter}`)
  return parts.join('   ') || 'this kernel has no such statistics'
}

function eventLines({ events, lost }: Step): string[] {
  if (events.length === 0) return []
  const told = timeline(events)
    .split('\n')
    .map((line) => paint('dim', `     ${line}`))
  return ['   events', ...told, ...(lost > 0 ? [`     and ${lost} lost`] : [])]
}

function printStep(step: Step, number: number): void {
  const lines = [
    '',
    paint('bold', `${number}. ${step.name}: ${step.did}`),
    paint('dim', `   ${step.means}`),
    `   GPA -> HVA  memslots          ${arrow(step.gpa, step.hva, 'no memslot')}`,
    `   HVA -> HPA  host page tables  ${arrow(step.hva, step.hpa, step.hva === null ? 'nothing' : 'not visible')}`,
    `   GPA -> HPA  second stage      ${counters(step.stats)}`,
    `   guest                         ${step.access}`,
    ...eventLines(step),
    ...step.checks.map(({ name, ok, seen }) => `   ${ok ? paint('green', 'ok  ') : paint('red', 'FAIL')} ${name}${seen ? ` (${seen})` : ''}`)
  ]
  console.log(lines.join('\n'))
}

const usage = `usage: node-kvm walkthrough [--json] [--lane LANE [--kernel K]]

  the three tables of the KVM thread of October 2020, on a real guest, every step checked

  --json         one JSON document
${laneUsage}`

/** Its exit status says whether every check held. */
export const walkthrough = command({
  usage,
  options: { json: { type: 'boolean' } },
  inLanes: true,
  run({ json = false }, words, program) {
    refuseWords(words, program)
    return replay(json)
  }
})

function replay(json: boolean): number {
  if (json) {
    const result = runWalkthrough()
    console.log(JSON.stringify(result, null, 2))
    return result.ok ? 0 : 1
  }
  console.log('How a guest-physical address becomes a host-physical one: the three tables of the KVM thread of October 2020.')
  const { host, steps, notes, ok } = runWalkthrough(printStep)
  const checks = steps.flatMap((step) => step.checks)
  console.log('')
  for (const note of notes) console.log(`note: ${note}`)
  console.log(`host: Linux ${host.kernel}, ${host.vendor}, second stage: ${host.mmu}`)
  console.log(
    ok
      ? paint('green', `ok: ${checks.length} checks`)
      : paint('red', `FAILED: ${checks.filter((check) => !check.ok).length} of ${checks.length} checks`)
  )
  return ok ? 0 : 1
}
