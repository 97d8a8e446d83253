// Makes docs/observing.md from what test/second-stage/observing.test.ts saw in each lane: node scripts/observing.mjs [--check]
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

/** Lanes that saw the same share a row. */
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

This is what \`trace(vm)\` shows when something is done to a guest's memory: at once, and when the guest touches the memory again. Unless a row
says otherwise, it is done to four pages; only events about these pages are counted. The guest reads or writes at CPL 3 in long mode.

| lane | module | second stage |
|---|---|---|
${about.join('\n')}

- A *violation* is an EPT violation or a nested page fault. Where KVM shadows page tables there is no event for it, nor for the end of
  a single entry: that shows as a notifier call without entries dropped, and as the entry that is set at the next access.
- *Entry dropped* counts entries that map pages, not tables on the way.
- The thread that changes the mapping makes the notifier's calls; \`by ksmd\` and the like name a thread of the kernel.
- The counts come from one run, in emulated machines except for \`shadow\`. The test asserts what must hold in every run, not the numbers:
  one processor may fault twice where another faults once.

| what is done | where | at once | when the guest touches it again |
|---|---|---|---|
${stimuli.flatMap(rows).join('\n')}

To make the table anew, run the test in each lane and kernel, and then write this file:

    NODE_KVM_OBSERVATIONS=docs/observations npx vitest run test/second-stage/observing.test.ts
    node-kvm lab run npt --kernel 6.12 --out out -- env NODE_KVM_OBSERVATIONS=/results vitest run test/second-stage/observing.test.ts
    node scripts/observing.mjs
`

if (process.argv.includes('--check')) {
  if (readFileSync(document, 'utf8') !== text) {
    console.error('docs/observing.md does not agree with docs/observations: run node scripts/observing.mjs')
    process.exit(1)
  }
} else writeFileSync(document, text)
