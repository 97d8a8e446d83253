// Runs the test suite in several environments, reads vitest's own reports, and makes one table of them all: test x lane.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

export const reporters = (file) => ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]

/** Counts the results in a report; a run that leaves no report has failed. */
export function readReport(name, path, exitStatus = 0) {
  const suite = { name, passed: 0, failed: 0, skipped: 0, files: new Map(), tests: [] }
  let result
  try {
    result = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    const reason = `its exit status is ${exitStatus}; ${error.message}`
    return { ...suite, failed: 1, tests: [{ file: 'the whole suite', fullName: 'leaves no report', status: 'failed', reason }] }
  }
  for (const { name: path, assertionResults, message, startTime, endTime } of result.testResults) {
    const file = basename(path)
    const count = { passed: 0, failed: 0, skipped: 0, seconds: Math.round((endTime - startTime) / 1000) }
    suite.files.set(file, count)
    const add = (test, kind, reason) => {
      count[kind]++
      suite[kind]++
      if (kind !== 'passed') suite.tests.push({ file, fullName: test, status: kind, reason })
    }
    for (const { fullName, status, meta, failureMessages } of assertionResults) {
      if (status === 'passed') add(fullName, 'passed')
      else if (status === 'failed') add(fullName, 'failed', failureMessages?.[0]?.split('\n')[0])
      else add(fullName, 'skipped', meta?.skipped ?? 'no reason given')
    }
    if (assertionResults.length === 0) add('the file itself', 'failed', message.split('\n')[0])
  }
  if (exitStatus !== 0 && suite.failed === 0) {
    suite.failed++
    suite.tests.push({ file: 'the whole suite', fullName: 'ended with another status than 0', status: 'failed', reason: 'see its output' })
  }
  return suite
}

/** The tests that every lane repeats, and those of a second stage that the processor walks. */
export const base = 'test/base'
export const secondStage = 'test/second-stage'

/** Runs folders of the suite inside a lane of the lab. */
export async function laneSuite(lane, kernel, folders, { timeout = 2400, quiet = false } = {}) {
  const out = mkdtempSync(join(tmpdir(), 'node-kvm-suite-'))
  const started = Date.now()
  try {
    const args = [
      'dist/lib/cli/main.js',
      'lab',
      'run',
      lane,
      '--kernel',
      kernel,
      '--timeout',
      String(timeout),
      '--out',
      out,
      '--',
      'vitest',
      'run',
      ...folders,
      ...reporters('/results/suite.json')
    ]
    const child = spawn(process.execPath, args, { stdio: ['ignore', quiet ? 'pipe' : 'inherit', 'inherit'] })
    child.stdout?.resume()
    const status = await new Promise((resolve) => child.on('close', resolve))
    const suite = readReport(`${lane} ${kernel}`, join(out, 'results/suite.json'), status)
    return { ...suite, seconds: Math.round((Date.now() - started) / 1000) }
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}

/** Says where the time of a suite goes. */
export function slowest(suite, files = 5) {
  const byTime = [...suite.files].sort(([, one], [, other]) => other.seconds - one.seconds)
  return `most of it: ${byTime
    .slice(0, files)
    .map(([file, { seconds }]) => `${file} ${seconds} s`)
    .join(', ')}`
}

const cell = (count) =>
  count === undefined
    ? '-'
    : [`${count.passed}`, count.failed && `${count.failed} FAILED`, count.skipped && `${count.skipped} skipped`].filter(Boolean).join(', ')

const keyOf = ({ file, status, reason }) => `${file}\0${status}\0${reason}`

function groupBy(items, key) {
  const groups = new Map()
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item])
  return groups
}

/** Lists the files by lane; then every failure and every skip, with its reason and its place. */
export function table(suites) {
  const files = [...new Set(suites.flatMap((suite) => [...suite.files.keys()]))].sort()
  const rows = [
    ['', ...suites.map(({ name }) => name)],
    ...files.map((file) => [file, ...suites.map((suite) => cell(suite.files.get(file)))]),
    ['all', ...suites.map(cell)]
  ]
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  const lines = rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column]))
      .join('  ')
      .trimEnd()
  )
  const where = new Map()
  for (const suite of suites) {
    // Several tests of one file with one reason make one line, for example on a machine without a compiler.
    const alike = groupBy(suite.tests, keyOf)
    for (const tests of alike.values()) {
      const [{ file, status, reason }] = tests
      const names = tests.length > 3 && status === 'skipped' ? [`${tests.length} tests`] : tests.map(({ fullName }) => fullName)
      for (const name of names) {
        const line = `${status === 'failed' ? 'FAILED ' : 'skipped'} ${file}: ${name}: ${reason}`
        where.set(line, [...(where.get(line) ?? []), suite.name])
      }
    }
  }
  return [...lines, '', ...[...where].sort().map(([line, names]) => `${line} [${names.join('; ')}]`)].join('\n')
}
