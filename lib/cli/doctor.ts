/** `node-kvm doctor`: what this host can do. */

import { json, visible } from '../abi/text.js'
import { diagnose, type Finding } from '../experiments/doctor.js'
import { command, laneUsage, refuseWords } from './command.js'
import { paint } from './paint.js'

function line({ name, ok, detail, remedy }: Finding): string {
  const mark = ok ? paint('green', 'yes') : paint('yellow', 'no ')
  return `${mark}  ${name.padEnd(20)} ${visible(detail)}${remedy ? `\n     ${' '.repeat(20)} -> ${visible(remedy)}` : ''}`
}

const usage = `usage: node-kvm doctor [--json] [--lane LANE [--kernel K]]

  what this host can do, and for each thing missing the one command or permission that grants it

  --json         one JSON document
${laneUsage}`

/** Its exit status is 0 when VMs can be made. */
export const doctor = command({
  usage,
  options: { json: { type: 'boolean' } },
  inLanes: true,
  run({ json: asJson = false }, words, program) {
    refuseWords(words, program)
    return tell(asJson)
  }
})

function tell(asJson: boolean): number {
  const diagnosis = diagnose()
  const { host, findings, ok } = diagnosis
  if (asJson) console.log(json(diagnosis, 2))
  else {
    console.log(`Linux ${host.kernel}, ${host.vendor}, second stage: ${host.mmu}\n`)
    for (const finding of findings) console.log(line(finding))
    console.log(`\n${ok ? paint('green', 'VMs can be made here.') : paint('red', 'No VM can be made here.')}`)
  }
  return ok ? 0 : 1
}
