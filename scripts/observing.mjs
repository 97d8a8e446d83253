// docs/observing.md from what test/second-stage/observing.test.ts saw in each lane: node scripts/observing.mjs [--check]
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

const folder = new URL('../docs/observations/', import.meta.url)
const document = new URL('../docs/observing.md', import.meta.url)

const order = ['shadow', 'npt', 'ept']
const lanes = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')))
  .sort((one, other) => order.indexOf(one.lane) - order.indexOf(other.lane) || one.kernel.localeCompare(other.kernel, 'en', { numeric: true }))

const words = {
  violation: 'violation',
  'spte-set': 'entry set',
  'spte-drop': 'entry dropped',
  'notifier-unmap': 'notifier unmap',
  'zap-all': 'zap of all entries',
  'huge-split': 'huge entry split',
  mmio: 'MMIO',
  memslot: 'memslot'
}
function phrase([key, count]) {
  const name = Object.keys(words).find((word) => key === word || key.startsWith(`${word} `))
  const text = name === undefined ? key : `${words[name]}${key.slice(name.length)}`
  return `${text}${count > 1 ? ` x${count}` : ''}`
}
const cell = (counts) => (counts === undefined ? '' : Object.entries(counts).map(phrase).join('<br>') || 'nothing')

/** Lanes that saw the same are one row. */
function rows(stimulus) {
  const seen = new Map()
  for (const { lane, kernel, observations } of lanes) {
    const one = observations.find((observation) => observation.stimulus === stimulus)
    const text = one?.missing === undefined ? `${cell(one?.atOnce)} | ${cell(one?.next)}` : `not seen here: ${one.missing} |`
    seen.set(text, [...(seen.get(text) ?? []), `${lane} ${kernel}`])
  }
  return [...seen].map(([text, where], index) => `| ${index === 0 ? stimulus : ''} | ${where.join(', ')} | ${text} |`)
}

const stimuli = lanes[0]?.observations.map(({ stimulus }) => stimulus) ?? []
const about = lanes.map(({ lane, kernel, module, mmu, tdpMmu }) => `| \`${lane} ${kernel}\` | ${module} | ${mmu}${tdpMmu ? ', TDP MMU' : ''} |`)

const text = `<!-- Made by scripts/observing.mjs from docs/observations, which test/second-stage/observing.test.ts wrote: change those, not this. -->
# What KVM tells of each change

What \`trace(vm)\` shows when somebody does something to a guest's memory: at once, and when the guest touches the memory again. Four pages,
where nothing else is said; only what concerns them is counted. The guest reads or writes at CPL 3 in long mode.

| lane | module | second stage |
|---|---|---|
${about.join('\n')}

- A *violation* is an EPT violation or a nested page fault. Where KVM shadows page tables there is no event for it, nor for one entry's end: it
  shows as a notifier call without entries dropped, and as the entry that is set at the next access.
- *Entry dropped* counts entries that map pages, not tables on the way.
- The notifier's calls are made by whoever changes the mapping: \`by ksmd\` and the like where that is a thread of the kernel.
- Counts are those of one run, in emulated machines but for \`shadow\`. The test asserts what must hold of them, not the numbers: a
  processor may fault twice where another faults once.

| what is done | where | at once | when the guest touches it again |
|---|---|---|---|
${stimuli.flatMap(rows).join('\n')}

To make it anew, in each lane and kernel, then to write this file:

    NODE_KVM_OBSERVATIONS=docs/observations npx vitest run test/second-stage/observing.test.ts
    node-kvm lab run npt --kernel 6.12 --out out -- env NODE_KVM_OBSERVATIONS=/results vitest run test/second-stage/observing.test.ts
    node scripts/observing.mjs
`

if (process.argv.includes('--check')) {
  if (readFileSync(document, 'utf8') !== text) {
    console.error('docs/observing.md is not what docs/observations says: node scripts/observing.mjs')
    process.exit(1)
  }
} else writeFileSync(document, text)
