// Checks everything that must hold. Each step runs even when an earlier one failed; the last line counts the results.
import { spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { base, laneSuite, readReport, reporters, secondStage, slowest, table } from './suites.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-ci-'))
// The ordinary user's report lies in a folder within this one.
chmodSync(scratch, 0o711)
const total = { passed: 0, failed: 0, skipped: 0 }
const suites = []
const started = Date.now()
const seconds = () => Math.round((Date.now() - started) / 1000)

/** @returns the exit status, which is null after a signal; and the output, which is shown as a whole because two commands run at a time */
function run(command, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (more) => (text += more))
    child.on('error', (error) => resolve({ status: null, text: String(error) }))
    child.on('close', (status) => resolve({ status, text }))
  })
}

const step = (name, command, args, env) => async () => {
  console.log(`.. ${name} (${seconds()} s)`)
  const { status, text } = await run(command, args, env)
  total[status === 0 ? 'passed' : 'failed']++
  console.log(`\n== ${name}\n${text}${status === 0 ? 'ok' : 'FAILED'}: ${name} (${seconds()} s)\n`)
}

const suite =
  (name, command, args, { env = {}, writer } = {}) =>
  async () => {
    console.log(`.. ${name} (${seconds()} s)`)
    const folder = join(scratch, name.replace(/\W+/g, '-'))
    mkdirSync(folder)
    if (writer !== undefined) chownSync(folder, writer, writer)
    const report = join(folder, 'report.json')
    const { status, text } = await run(command, [...args, ...reporters(report)], env)
    console.log(`\n== ${name}\n${text}`)
    count(readReport(name, report, status))
  }

const inLane = (lane, kernel, folders) => async () => {
  console.log(`.. suite in ${lane} ${kernel} (${seconds()} s)`)
  count(await laneSuite(lane, kernel, folders, { quiet: true }))
}

function count(suite) {
  for (const kind of Object.keys(total)) total[kind] += suite[kind]
  suites.push(suite)
  const { name, passed, failed, skipped } = suite
  console.log(
    `${failed === 0 ? 'ok' : 'FAILED'}: suite ${name}: ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds()} s)\n${slowest(suite)}\n`
  )
}

/** Runs `own` steps, which must not run beside each other, one after the other; then takes steps from those that both queues share. */
async function inOrder(own, shared) {
  for (const next of own) await next()
  for (let next = shared.shift(); next; next = shared.shift()) await next()
}

const cli = (...args) => [process.execPath, ['dist/lib/cli/main.js', ...args]]
const npm = (script, ...args) => ['npm', ['run', '--silent', script, ...args]]
const walkthrough = (lane, kernel) => step(`walkthrough in ${lane} ${kernel}`, ...cli('walkthrough', '--json', '--lane', lane, '--kernel', kernel))

const vitest = (...args) => ['node_modules/vitest/vitest.mjs', 'run', ...args]
/** The user that scripts/pretend.sh becomes. */
const nobody = 65534
const pretend = (kind) => ['scripts/pretend.sh', [kind, process.execPath, ...vitest(base)]]

/** The oldest and the newest Node that the package supports; `npm run check:long` tests those between. */
const nodes = [20, 26].filter((version) => version !== Number(process.versions.node.split('.')[0]))

// Each of these steps changes settings of this host's kernel (tracefs, ksm) or looks at every VM of the host. The first is the whole suite, and
// builds what the others run; they repeat its base.
const here = [
  suite('here', 'npm', ['test', '--']),
  step('walkthrough', 'npm', ['start', '--silent', '--', '--json']),
  suite('ordinary user', ...pretend('ordinary-user'), { writer: nobody }),
  suite('without /dev/kvm', ...pretend('without-kvm')),
  step('build with AddressSanitizer', ...npm('build:asan')),
  suite('under AddressSanitizer', ...npm('test:asan', '--', base)),
  // The seed is fixed, so that the programs are the same each time and a failure comes from the change; `npm run check:long` runs other programs.
  step('fuzz under AddressSanitizer', ...npm('fuzz:asan', '--', '--seconds', '60', '--seed', '1')),
  ...nodes.map((version) => suite(`on node ${version}`, 'scripts/on-node.sh', [String(version), ...vitest(base)])),
  step('stress', ...npm('stress', '--', '--seconds', '10'))
]
// The lab's machines have one processor each. AMD's lane has the other kernel than Intel's; `npm run check:long` swaps them.
const lab = [inLane('ept', '6.1', [base, secondStage]), inLane('npt', '6.12', [base])]
const shared = [
  step('native stress under ThreadSanitizer', ...npm('test:tsan')),
  step('package', ...npm('check:package')),
  step('documentation', ...npm('docs')),
  step('generated ABI and the headers it is from', ...npm('generate:abi', '--', '--check', '--download')),
  step('BPF program and its committed skeleton', ...npm('check:bpf')),
  ...['6.1', '6.12'].flatMap((kernel) => ['npt', 'ept'].map((lane) => walkthrough(lane, kernel)))
]
await inOrder([step('lint', ...npm('lint')), step('the lab', ...cli('lab', 'prepare'))], [])
await Promise.all([inOrder(here, shared), inOrder(lab, shared)])
rmSync(scratch, { recursive: true, force: true })
console.log(table(suites))
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)
