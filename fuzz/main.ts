/** npm run fuzz -- --seconds N [--seed S] [--sequences N] [--package DIR]: docs/fuzz.md describes it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { print } from './print.js'
import { type Found, Search } from './search.js'
import { buildShim } from './shim.js'

function refuse(message: string): never {
  console.error(`fuzz: ${message}`)
  process.exit(2)
}

const numbers = ['seconds', 'sequences', 'seed', 'jobs', 'hang-seconds', 'shrink-seconds'] as const

function parse() {
  try {
    const options = Object.fromEntries([...numbers, 'package'].map((name) => [name, { type: 'string' as const }]))
    return parseArgs({ options }).values as Partial<Record<(typeof numbers)[number] | 'package', string>>
  } catch (error) {
    return refuse((error as Error).message.replaceAll('\n', ' '))
  }
}

const values = parse()
const number = (name: (typeof numbers)[number], otherwise: number) => {
  const text = values[name]
  if (text !== undefined && !/^\d{1,15}$/.test(text)) refuse(`--${name} takes a whole number, and not '${text}'`)
  return text === undefined ? otherwise : Number(text)
}
const seed = number('seed', Math.floor(Math.random() * 2 ** 31))
if (seed >= 2 ** 31) refuse(`--seed must be below ${2 ** 31}`)
const seconds = number('seconds', values.sequences === undefined ? 60 : Number.POSITIVE_INFINITY)

const sequences = number('sequences', Number.POSITIVE_INFINITY)
const jobs = number('jobs', availableParallelism())
if (jobs < 1 || jobs > 64) refuse('--jobs must be 1 to 64')
const [hangSeconds, shrinkMilliseconds] = [number('hang-seconds', 10), number('shrink-seconds', 20) * 1000]

let interrupted = false
let search: Search | undefined
const interrupt = () => {
  interrupted = true
  void search?.stop()
}
// This comes before anything is made that an interrupt could leave behind.
process.on('SIGINT', interrupt)
process.on('SIGTERM', interrupt)

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-fuzz-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
search = new Search(
  {
    seed,
    sequences,
    milliseconds: seconds * 1000,
    jobs,
    folder,
    environment: {
      ...buildShim(folder),
      ...(values.package !== undefined && { NODE_KVM_FUZZ_PACKAGE: `${pathToFileURL(resolve(values.package)).href}/` })
    },
    hangSeconds,
    shrinkMilliseconds
  },
  tell
)

function tell({ finding, program, alone, seed }: Found): void {
  const heading = [`${finding.kind}, with --seed ${seed} --sequences 1: ${finding.what}`, `in ${finding.call.slice(0, 200)}`]
  if (!alone) heading.push('It was seen once, after other programs in the same process; this program by itself did not show it again.')
  console.error(`\n${print(program, heading)}`)
}

// A signal that came while the shim was compiled arrives in a later turn.
await new Promise((resolve) => setImmediate(resolve))
if (interrupted) await search.stop()
const shown = process.stderr.isTTY
  ? setInterval(() => process.stderr.write(`\r${search?.sequences} programs, ${search?.calls} calls, ${search?.faults} faults `), 500)
  : undefined
await search.run()
clearInterval(shown)

const { crash: crashes, hang: hangs, untyped: untypedErrors, wrong, leak: leaks } = search.counts
const ok = crashes + hangs + untypedErrors + wrong + leaks === 0 && search.sequences > 0
console.log(JSON.stringify({ seed, calls: search.calls, sequences: search.sequences, crashes, hangs, untypedErrors, wrong, leaks, ok }))
process.exit(ok ? 0 : 1)
