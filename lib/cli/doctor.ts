/** `node-kvm doctor`: shows what this host can do. */

import { json, visible } from '../abi/text.js'
import { diagnose, type Finding } from '../observe/doctor.js'
import { command, laneUsage, refuseWords } from './command.js'
import { paint } from './paint.js'

const width = 80
const nameWidth = 20
const margin = ' '.repeat(5 + nameWidth)

/** Breaks a text into lines that end before column 80. All but the first begin with `indent`. */
function wrap(text: string, indent: string): string {
  const lines = ['']
  for (const word of visible(text).split(' ')) {
    const line = lines.at(-1) as string
    if (line !== '' && indent.length + line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`
  }
  return lines.join(`\n${indent}`)
}

/** Formats a finding. Its command stays on one line, left of the margin, so that it can be copied whole. */
function describe({ name, ok, detail, remedy, advice, price }: Finding): string {
  const mark = ok ? paint('green', 'yes') : paint('yellow', 'no ')
  const lines = [`${mark}  ${visible(name).padEnd(nameWidth)}${wrap(detail, margin)}`]
  if (remedy) lines.push(`${' '.repeat(5)}$ ${visible(remedy)}`)
  if (price) lines.push(`${margin}${wrap(`price: ${price}`, margin)}`)
  if (advice) lines.push(`${margin}${wrap(`-> ${advice}`, margin)}`)
  return lines.join('\n')
}

const usage = `usage: node-kvm doctor [--json] [--lane LANE [--kernel K]]

  what this host can do, and for each thing missing the one command or permission that grants it

  --json         one JSON document
${laneUsage}`

/** Runs the doctor. The exit status is 0 if VMs can be made and run. */
export const doctor = command({
  usage,
  options: { json: { type: 'boolean' } },
  inLanes: true,
  run({ json: asJson = false }, words, program) {
    refuseWords(words, program)
    return tell(asJson)
  }
})

async function tell(asJson: boolean): Promise<number> {
  const diagnosis = await diagnose()
  const { host, findings, ok } = diagnosis
  if (asJson) console.log(json(diagnosis, 2))
  else {
    console.log(`${visible(`Linux ${host.kernel}, ${host.vendor}, second stage: ${host.mmu}`)}\n`)
    for (const finding of findings) console.log(describe(finding))
    console.log(`\n${ok ? paint('green', 'VMs can be made and run here.') : paint('red', 'No VM can be run here.')}`)
  }
  return ok ? 0 : 1
}
