import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KiB, MiB } from 'node-kvm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { execute, UsageError } from '../../lib/cli/command.js'
import { trace as command } from '../../lib/cli/trace.js'
import { tryReading } from '../../lib/observe/tables/reader.js'
import { built, commandLine } from '../support/built.js'
import { noLane } from '../support/lane.js'
import { patience } from '../support/patience.js'
import { skip } from '../support/skip.js'
import { Target } from '../support/target.js'
import { needsTracing } from '../support/tracing.js'
import { vm } from '../support/vm.js'

const example = built('examples/memslot-move.js')
const trace = (...args: string[]) => spawnSync(process.execPath, [commandLine, 'trace', ...args], { encoding: 'utf8', timeout: patience })
const objects = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

beforeEach((context) => needsTracing(context, vm))

describe('node-kvm trace of a program', () => {
  test("writes its timeline to standard output and the program's output to standard error, and keeps its status", () => {
    const { stdout, stderr, status } = trace('--', process.execPath, example)
    expect(stderr).toContain('slot at 0xa000: the guest reads')
    expect(stdout).toMatch(/ms {2}zap every entry of the VM/)
    expect(stdout).toMatch(/ms {2}(violation|spte) /)
    expect(stdout).toMatch(/\n\d+ events in [\d.]+ s, none lost: .*\d+ zap-all/)
    expect(status).toBe(0)
  })

  test('writes JSON, an object for each line in order of time, and then the summary', () => {
    const { stdout, status } = trace('--json', '--kinds', 'zap-all,spte-set,mmio', '--', process.execPath, example)
    const events = objects(stdout)
    const summary = events.pop()
    expect(status).toBe(0)
    expect(summary).toMatchObject({ kind: 'summary', lost: 0, events: events.length, unavailable: [] })
    expect(summary.counts['zap-all']).toBe(events.filter(({ kind }) => kind === 'zap-all').length)
    expect([...new Set(events.map(({ kind }) => kind))].sort()).toEqual(['mmio', 'spte-set', 'zap-all'])
    const times = events.map(({ time }) => time)
    expect(times).toEqual(times.slice().sort((one, other) => one - other))
    // Delete, move, and a rebind, which is a delete and a create: each drops all entries.
    expect(summary.counts['zap-all']).toBe(3)
  })

  test('follows the children of a shell, too, and leaves the program its output where the events go into a file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-trace-'))
    try {
      const { stdout, stderr, status } = trace('--out', join(folder, 'trace'), '--', 'sh', '-c', `"$0" "$1"; exit 7`, process.execPath, example)
      expect(stdout).toContain('slot at 0xa000: the guest reads')
      expect(stderr).toBe('')
      expect(status).toBe(7)
      expect(readFileSync(join(folder, 'trace'), 'utf8')).toContain('zap every entry of the VM')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('ends with the status that a shell would give where a signal ended the program', () => {
    expect(trace('--', 'sh', '-c', 'kill -9 $$').status).toBe(137)
  })
})

describe('node-kvm trace of a process that runs already', () => {
  let target: Target
  afterEach(() => target?.end())
  async function start() {
    target = await Target.start()
  }

  /** Attaches, calls `work` when events flow, and ends the command by `end`. */
  async function attached(args: string[], work: (child: ChildProcess, seen: () => string) => Promise<void>, end: () => unknown) {
    const child = spawn(process.execPath, [commandLine, 'trace', '--pid', String(target.pid), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    let stdout = ''
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text))
    const done = new Promise<number | null>((resolve) => child.once('close', resolve))
    await sleep(1)
    // The command has begun when the guest's actions show.
    for (const started = Date.now(); stdout === '' && Date.now() - started < patience; await sleep(50)) await target.do('touchAll')
    await work(child, () => stdout)
    await end()
    if (end !== kill) child.kill('SIGINT')
    return { status: await done, stdout }
  }
  const kill = () => target.end()

  test('shows notifier calls with the GPAs that they hit, and ends with the summary at Ctrl-C', async (context) => {
    const refused = tryReading()
    if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
    await start()
    const { slots } = await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    const isHit = ({ kind, hva, gpas }: any) => kind === 'notifier-unmap' && hva === slots[0].hva + 0x3000 && gpas
    // This lasts until the command has read the memslots, and reported a call with the slot that it hits.
    const work = async (_: ChildProcess, seen: () => string) => {
      const told = () => objects(seen().replace(/[^\n]*$/, '')).some(isHit)
      for (const started = Date.now(); !told() && Date.now() - started < patience; await sleep(50)) {
        await target.do('touchAll')
        await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x3000, length: 4096 })
      }
    }
    const { status, stdout } = await attached(['--json', '--kinds', 'notifier-unmap,spte-set,pio'], work, () => {})
    expect(status).toBe(0)
    const events = objects(stdout)
    expect(events.at(-1)).toMatchObject({ kind: 'summary', lost: 0 })
    expect(events.at(-1).memslots).toBeGreaterThan(1)
    expect(events.find(isHit)).toMatchObject({
      process: target.pid,
      gpas: [{ gpa: slots[0].gpa + 0x3000, size: 4096 }]
    })
  })

  test('tells the losses of a ring that is too small', async () => {
    await start()
    const size = 4 * MiB
    await target.do('slots', { count: 1, size })
    await target.do('guest')
    // While nobody reads, more entries are set than the ring holds.
    const work = async (child: ChildProcess) => {
      child.kill('SIGSTOP')
      await target.do('advise', { index: 0, advice: 'dontneed', offset: 0, length: size })
      await target.do('touchAll')
      child.kill('SIGCONT')
    }
    const { status, stdout } = await attached(['--ring-size', '4K', '--kinds', 'pio,spte-set'], work, () => {})
    expect(status).toBe(0)
    expect(stdout).toMatch(/(^|\n)\d+ events in [\d.]+ s, \d+ lost: raise --ring-size/)
  })

  test('ends when the process ends', async () => {
    await start()
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    const { status, stdout } = await attached(['--kinds', 'pio,spte-set'], async () => {}, kill)
    expect(status).toBe(0)
    expect(stdout).toMatch(/\n\d+ events in [\d.]+ s, none lost/)
  })
})

describe('bad input', () => {
  test.each([
    [[], 'either --pid, or a program'],
    [['--pid', '1', '--', 'true'], 'either --pid, or a program'],
    [['--pid', 'one'], "--pid is 'one'"],
    [['more', '--', 'true'], "takes no 'more'"],
    [['--kinds', 'violations', '--', 'true'], "--kinds has no 'violations'"],
    [['--kinds', 'memslot', '--', 'true'], 'trace(vm)'],
    [['--ring-size', '5000', '--', 'true'], 'power of two']
  ])('%j is refused', async (args, message) => {
    await expect(execute(command, 'trace', args, noLane)).rejects.toThrow(message)
    await expect(execute(command, 'trace', args, noLane)).rejects.toBeInstanceOf(UsageError)
  })
  test('a process, a tracepoint and a program that do not exist are told', async () => {
    await expect(execute(command, 'trace', ['--pid', String(2 ** 22 + 1)], noLane)).rejects.toMatchObject({ code: 'argument', pid: 2 ** 22 + 1 })
    await expect(execute(command, 'trace', ['--tracepoints', 'kvm/nonsense', '--', 'true'], noLane)).rejects.toThrow('kvm/nonsense')
    expect(trace('--', '/nonexistent')).toMatchObject({ status: 127, stderr: expect.stringContaining('ENOENT') })
  })
})
