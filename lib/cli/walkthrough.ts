/** `node-kvm walkthrough`: prints the six steps, each with the tables as the thread prints them. */
import { hex } from '../abi/arguments.js'
import { json, visible } from '../abi/text.js'
import type { SecondStage } from '../observe/tables/translate.js'
import { timeline } from '../observe/trace/timeline.js'
import type { Check, Step, StepStatistics } from '../walkthrough/thread-step.js'
import type { Walkthrough } from '../walkthrough/walkthrough.js'
import { command, laneUsage, refuseWords } from './command.js'
import { paint } from './paint.js'
import { entryWords, stageName, tableLine, tableWidth } from './words.js'

const table = (...words: Parameters<typeof tableLine>) => `   ${tableLine(...words)}`
const shortEntry = (entry: SecondStage) => (entry.present ? `${hex(entry.hpa)} ${entry.access}` : 'no entry')

/** Formats the third table's entry at the three moments, so that readers see it go and come back. */
function courseLine({ before, changed, accessed }: NonNullable<Step['secondStage']>): string {
  const moments = [`before: ${shortEntry(before)}`, `after the change: ${shortEntry(changed)}`, `after the access: ${shortEntry(accessed)}`]
  return `   ${' '.repeat(10)}  ${paint('dim', `${' '.repeat(tableWidth)} ${moments.join('  ->  ')}`)}`
}

function secondStageLines({ gpa, secondStage }: Step): string[] {
  if (!secondStage) return [table('GPA -> HPA', stageName(), gpa, 'not visible')]
  const { accessed } = secondStage
  const line = accessed.present
    ? table('GPA -> HPA', stageName(), gpa, accessed.hpa, entryWords(accessed))
    : table('GPA -> HPA', stageName(), gpa, 'no entry')
  return [line, courseLine(secondStage)]
}

function counters({ pfFixedBefore, pfFixedAfter, pages4kBefore, pages4kChanged, pages4kAfter }: StepStatistics): string {
  const parts = []
  if (pages4kBefore !== undefined) parts.push(`pages_4k ${pages4kBefore} -> ${pages4kChanged} -> ${pages4kAfter}`)
  if (pfFixedBefore !== undefined) parts.push(`pf_fixed ${pfFixedBefore} -> ${pfFixedAfter}`)
  return parts.join('   ') || 'this kernel has no such statistics'
}

const detail = (name: string, text: string) => `   ${name.padEnd(10)}  ${text}`

function eventLines({ events, lost }: Step): string[] {
  if (events.length === 0) return []
  const told = timeline(events)
    .split('\n')
    .map((line) => paint('dim', `  ${line}`))
  return ['   events', ...told, ...(lost > 0 ? [`     and ${lost} lost`] : [])]
}

const checkLine = ({ name, ok, seen }: Check) => `   ${ok ? paint('green', 'ok  ') : paint('red', 'FAIL')} ${name}${seen ? ` (${seen})` : ''}`

function printStep(step: Step, number: number): void {
  const { gpa, hva, hpa } = step
  const lines = [
    '',
    paint('bold', `${number}. ${step.name}: ${step.did}`),
    `   ${step.means}`,
    '',
    table('GPA -> HVA', 'memslots', gpa, hva ?? 'no memslot'),
    table('HVA -> HPA', 'host page tables', hva, hpa ?? 'not visible'),
    ...secondStageLines(step),
    detail('guest', step.access),
    detail('counters', counters(step.stats)),
    ...eventLines(step),
    ...step.checks.map(checkLine)
  ]
  console.log(lines.join('\n'))
}

function printEnd({ host, steps, notes, ok }: Walkthrough): void {
  const checks = steps.flatMap((step) => step.checks)
  console.log('')
  for (const note of notes) console.log(paint('yellow', `note: ${visible(note)}`))
  console.log(`host: Linux ${host.kernel}, ${host.vendor}, second stage: ${stageName()}`)
  console.log(
    ok
      ? paint('green', `ok: ${checks.length} checks`)
      : paint('red', `FAILED: ${checks.filter((check) => !check.ok).length} of ${checks.length} checks`)
  )
}

const usage = `usage: node-kvm walkthrough [--json] [--lane LANE [--kernel K]]

  the three tables of the KVM thread of October 2020, on a real guest, every step checked

  --json         one JSON document
${laneUsage}`

/** Runs the walkthrough. The exit status says whether every check passed. */
export const walkthrough = command({
  usage,
  options: { json: { type: 'boolean' } },
  inLanes: true,
  run({ json: asJson = false }, words, program) {
    refuseWords(words, program)
    return replay(asJson)
  }
})

/** Loads the parts that need the add-on only here, since --help works without it. */
async function replay(asJson: boolean): Promise<number> {
  const { runWalkthrough } = await import('../walkthrough/walkthrough.js')
  if (!asJson) console.log('How a guest-physical address becomes a host-physical one: the three tables of the KVM thread of October 2020.')
  const result = runWalkthrough(asJson ? undefined : printStep)
  if (asJson) console.log(json(result, 2))
  else printEnd(result)
  return result.ok ? 0 : 1
}
