// Compares reading another process's VM with the same walk in C++, in interleaved rounds of one run. It prints and asserts nothing.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { GiB } from 'node-kvm'
import { hostVms, tables } from 'node-kvm/observe'

const rounds = Number(process.argv[2] ?? 9)
const perRound = 3
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-bench-'))
const program = join(folder, 'tables')
const median = (values: number[]) => values.slice().sort((a, b) => a - b)[values.length >> 1] as number
const milliseconds = (values: number[]) => (median(values) / 1e6).toFixed(2).padStart(10)

/** A VM of another process, in the state that these instructions produce. */
async function target(...instructions: object[]): Promise<{ pid: number; end(): void }> {
  const child = spawn(process.execPath, ['test/support/target.mjs'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await answers.next()
  for (const instruction of instructions) {
    child.stdin.write(`${JSON.stringify(instruction)}\n`)
    if ((await answers.next()).done) throw new Error('the target ended')
  }
  return { pid: child.pid as number, end: () => child.kill('SIGKILL') }
}

function time(work: () => unknown): number {
  const start = process.hrtime.bigint()
  work()
  return Number(process.hrtime.bigint() - start)
}

/** Looks at every slot, because C++ has them all in arrays at the end. */
function everySlot(pid: number): number {
  const { memslots, memory } = hostVms({ pid })[0]!
  return memory > 0 ? memslots.length : 0
}

let firstReading = ''

async function compare(name: string, what: 'tables' | 'slots', read: (pid: number) => number, instructions: object[]): Promise<void> {
  const { pid, end } = await target(...instructions)
  try {
    let rows = 0
    const first = time(() => {
      rows = read(pid)
    })
    firstReading ||= milliseconds([first])
    const inC: number[] = []
    const ours: number[] = []
    for (let round = 0; round < rounds; round++) {
      const printed = execFileSync(program, [String(pid), what, String(perRound)], { encoding: 'utf8' })
      inC.push(median(printed.trim().split('\n').map(Number)))
      ours.push(median(Array.from({ length: perRound }, () => time(() => read(pid)))))
    }
    const ratio = median(ours.map((value, round) => value / (inC[round] as number)))
    const best = Math.min(...ours) / Math.min(...inC)
    const figures = [ratio, best].map((value) => value.toFixed(2).padStart(8)).join(' ')
    console.log(`${name.padEnd(34)} ${String(rows).padStart(8)} ${milliseconds(inC)} ${milliseconds(ours)} ${figures}`)
  } finally {
    end()
  }
}

try {
  const sources = ['-Inative', 'bench/tables.cc', 'native/observe/table_reader.cc', 'native/core/page_ranges.cc', 'native/observe/page_rows.cc']
  execFileSync('g++', ['-std=c++20', '-O2', '-o', program, ...sources], { stdio: 'inherit' })
  console.log(
    `medians of ${rounds} rounds of ${perRound}, milliseconds; the ratio of node-kvm to C++ is the median of each round's, best is that of the fastest rounds`
  )
  console.log(`${''.padEnd(34)} ${'rows'.padStart(8)} ${'C++'.padStart(10)} ${'node-kvm'.padStart(10)} ${'ratio'.padStart(8)} ${'best'.padStart(8)}`)
  const whole = [{ do: 'slots', count: 1, size: GiB, gpa: 2 * GiB }, { do: 'guest' }, { do: 'touchAll' }]
  await compare('three tables of 262,144 pages', 'tables', (pid) => tables(hostVms({ pid })[0]!).gpa.length, whole)
  await compare('32,760 memslots', 'slots', everySlot, [{ do: 'manySlots', count: 32_760 }])
  console.log(`the first reading of the process, which loads the program: ${firstReading.trim()} ms`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
