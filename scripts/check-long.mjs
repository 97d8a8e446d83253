// Runs everything that takes too long for every change: benchmarks, and the tests' promises, kept for minutes. It prints all output; its status is 1
// when a promise was broken. A benchmark prints and does not judge. Run it on a quiet machine: npm run check:long [-- WORD], where WORD selects the
// steps with that word in their names.
import { spawn } from 'node:child_process'

const npm = (script, ...args) => ['npm', 'run', '--silent', script, ...(args.length ? ['--', ...args] : [])]
const node = (...args) => [process.execPath, ...args]

/** Programs of test/faults, run for longer: their last line is JSON, in which these counts must be 0. */
const faults = [
  ['exits told once, with pages served: two million', node('test/faults/exits-while-serving.mjs', '2000000'), ['twice', 'lost', 'other']],
  ["exits told once, under a stranger's signals", node('test/faults/exits-under-signals.mjs', '30'), ['wrong', 'other']]
]
const vitest = (...args) => node('node_modules/vitest/vitest.mjs', 'run', ...args)
const promises = [
  ['the suite beside busy loops, three times', node('scripts/busy.mjs', '3', ...vitest('--exclude', '**/lab.test.ts'))],
  ['the suite as an ordinary user', ['scripts/pretend.sh', 'ordinary-user', ...vitest()]],
  ['the suite without /dev/kvm', ['scripts/pretend.sh', 'without-kvm', ...vitest()]],
  ['the suite under AddressSanitizer', npm('test:asan', '--exclude', '**/lab.test.ts')],
  ['Node 22', ['scripts/on-node.sh', '22', ...vitest().slice(1)]],
  ['Node 24', ['scripts/on-node.sh', '24', ...vitest().slice(1)]],
  ['the lanes with the other kernels', node('scripts/lanes.mjs', 'ept:6.12', 'npt:6.1')],
  ['fuzz', npm('fuzz', '--seconds', '1200')],
  ['stress', npm('stress', '--seconds', '60')],
  ['memslots changed by four Workers', npm('stress:memslots', '--seconds', '60')],
  ['native stress under ThreadSanitizer', npm('test:tsan')]
]
const benchmarks = [
  ['exits', npm('bench', '20', 'exit')],
  ['registers', npm('bench', '20', 'registers')],
  ['memslots', npm('bench', '10', 'slot')],
  ['memory', npm('bench', '5', 'GiB')],
  ['threads', npm('bench:threads')],
  ['tables', npm('bench:tables')],
  ['trace', npm('bench:trace')],
  ['the lab', npm('bench:lab')]
]

function run([command, ...args]) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (more) => {
      text += more
      process.stdout.write(more)
    })
    child.on('close', (status) => resolve({ status, text }))
  })
}

const wanted = process.argv[2] ?? ''
const broken = []
for (const [name, command, zeros = []] of [...faults, ...promises, ...benchmarks]) {
  if (!name.includes(wanted)) continue
  console.log(`\n== ${name}`)
  const { status, text } = await run(command)
  const told = zeros.length ? JSON.parse(text.trim().split('\n').at(-1)) : {}
  const kept = status === 0 && zeros.every((key) => told[key] === 0)
  if (!kept) broken.push(name)
  console.log(kept ? `ok: ${name}` : `BROKEN: ${name} (status ${status})`)
}
console.log(broken.length ? `\nbroken: ${broken.join('; ')}` : '\nall kept')
process.exit(broken.length ? 1 : 0)
