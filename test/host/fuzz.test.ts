/** The fuzzer finds nothing in a few programs of a known seed, and would find each kind of fault. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { built } from '../support/built.js'
import { needsBpf, needsKvm } from '../support/needs.js'

const main = built('fuzz/main.js')
let scratch: string
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'node-kvm-fuzz-test-'))
})
afterEach(() => rmSync(scratch, { recursive: true, force: true }))

function start(args: string[], environment: Record<string, string> = {}) {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, TMPDIR: scratch, ...environment },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const output = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) child[stream].setEncoding('utf8').on('data', (text) => (output[stream] += text))
  const ended = once(child, 'close').then(([status, signal]) => {
    const line = output.stdout.trim().split('\n').at(-1) as string
    return { status, signal, ...output, result: JSON.parse(line) as Record<string, number | boolean> }
  })
  return { child, ended }
}

test('some programs run without a fault, and leave no folder', async () => {
  const { status, stderr, result } = await start(['--sequences', '25', '--seed', '1']).ended
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  expect(result).toEqual({ seed: 1, calls: expect.any(Number), sequences: 25, crashes: 0, hangs: 0, untypedErrors: 0, wrong: 0, leaks: 0, ok: true })
  expect(result['calls']).toBeGreaterThan(100)
  expect(readdirSync(scratch)).toEqual([])
})

test.for(['--seconds x', '--seed=-1', '--seed 1.5', '--seconds=', '--wrong', 'more', '--seed -1', '--jobs 0'])('%s is refused in a line', (words) => {
  const env = { ...process.env, TMPDIR: scratch }
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words.split(' ')], { encoding: 'utf8', env })
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(/^fuzz: .+\n$/)
  expect(readdirSync(scratch)).toEqual([])
})

test('an interrupted run ends its processes, and counts what it did', async () => {
  const { child, ended } = start(['--seconds', '1000', '--seed', '1'])
  const children = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
  const isAtWork = () => readdirSync(scratch).some((folder) => existsSync(join(scratch, folder, 'log-0')))
  await expect.poll(isAtWork, { timeout: 30_000 }).toBe(true)
  const begun = children()
  child.kill('SIGINT')
  const { status, result } = await ended
  expect(status).not.toBeNull()
  expect(result['seed']).toBe(1)
  await expect.poll(() => begun.filter((pid) => existsSync(`/proc/${pid}`)), { timeout: 30_000 }).toEqual([])
  expect(readdirSync(scratch)).toEqual([])
})

describe('a planted fault is found, and its program printed', () => {
  const kinds = {
    untyped: ['untypedErrors', /^\/\/ untyped.*Cannot read properties of undefined/m],
    crash: ['crashes', /^\/\/ crash.*SIGABRT/m],
    hang: ['hangs', /^\/\/ hang.*no call returned/m],
    sleep: ['hangs', /^\/\/ hang.*no call returned/m],
    promise: ['hangs', /^\/\/ hang.*a promise never settled/m],
    wrong: ['wrong', /^\/\/ wrong.*memslots/m],
    leak: ['leaks', /^\/\/ leak.*kvm/m]
  } as const
  test.for(Object.entries(kinds))("a fault of the kind '%s' is found", async ([fault, [counted, heading]], context) => {
    if (fault === 'wrong' || fault === 'leak') needsKvm(context)
    if (fault === 'wrong') needsBpf(context)
    const args = ['--sequences', '20', '--seed', '3', '--hang-seconds', '2', '--shrink-seconds', '1']
    const { status, stderr, result } = await start(args, { NODE_KVM_FUZZ_PLANT: fault }).ended
    expect(result[counted]).toBeGreaterThan(0)
    expect({ status, ok: result['ok'] }).toEqual({ status: 1, ok: false })
    expect(stderr).toMatch(heading)
    expect(stderr).toMatch(/^async function program\(\) {$/m)
  })

  test('the program runs by itself', async () => {
    const { stderr } = await start(['--sequences', '20', '--seed', '3', '--shrink-seconds', '1'], { NODE_KVM_FUZZ_PLANT: 'crash' }).ended
    mkdirSync(join(scratch, 'node_modules'))
    symlinkSync(fileURLToPath(new URL('../..', import.meta.url)), join(scratch, 'node_modules/node-kvm'))
    writeFileSync(join(scratch, 'found.mjs'), stderr.slice(stderr.indexOf('// crash')))
    const child = spawn(process.execPath, [join(scratch, 'found.mjs')], { stdio: 'inherit' })
    // The fault was planted in the fuzzer, so the printed program ends well.
    expect(await once(child, 'close')).toEqual([0, null])
  })
})
