// Measures how long `import('node-kvm')` takes, for this checkout and others, in interleaved rounds of separate processes. It prints and asserts
// nothing.
// usage: node dist/bench/import.js [OTHER CHECKOUT, BUILT]... : the last column is the ratio to the first of them
import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const rounds = 21
const here = fileURLToPath(new URL('../..', import.meta.url))
const others = process.argv.slice(2).map((path) => resolve(path))
const doors = ['index', 'observe', 'testing', 'walkthrough']
const modules = [
  ...others.map((path) => ({ name: path, file: join(path, 'dist/lib/index.js') })),
  ...doors.map((door) => ({ name: `here, the door ${door}`, file: join(here, `dist/doors/${door}.js`) }))
]

/** Milliseconds by the clock, and of the processor: other work on this machine lengthens the first. */
function importing(file: string): [wall: number, processor: number] {
  const program = `
    const start = process.hrtime.bigint(), before = process.cpuUsage()
    await import(${JSON.stringify(pathToFileURL(file).href)})
    const { user, system } = process.cpuUsage(before)
    console.log(Number(process.hrtime.bigint() - start) / 1e6, (user + system) / 1e3)`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  if (stdout === '') throw new Error(stderr)
  return stdout.split(' ').map(Number) as [number, number]
}

const median = (values: number[]) => values.slice().sort((one, other) => one - other)[values.length >> 1] as number
const times = modules.map((): [number, number][] => [])
for (let round = 0; round < rounds; round++) for (const [index, { file }] of modules.entries()) times[index]?.push(importing(file))
const rows = modules.map(({ name }, index) => ({
  name,
  wall: median((times[index] ?? []).map(([wall]) => wall)),
  processor: median((times[index] ?? []).map(([, processor]) => processor))
}))
console.table(
  rows.map(({ name, wall, processor }) => ({
    module: name,
    'ms by the clock': wall.toFixed(1),
    'ms of the processor': processor.toFixed(1),
    ratio: (processor / (rows[0] as { processor: number }).processor).toFixed(2)
  }))
)
