import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { cacheFolder, making, runsName } from '../../lab/cache.js'
import { findProgram } from '../../lab/libraries.js'
import { tryAcquire } from '../../lab/lock.js'
import { commandLine } from '../support/built.js'
import { patience } from '../support/patience.js'
import { skip } from '../support/skip.js'

/** The time limit for emulated machines on a machine that may be busy. */
const limit = String(patience / 1000)

let scratch: string
beforeEach((context) => {
  if (process.env['NODE_KVM_ADDON']) skip(context, 'the lab loads no add-on here: another build of it makes no difference')
  scratch = mkdtempSync(join(tmpdir(), 'node-kvm-lab-test-'))
})
afterEach(() => {
  if (scratch) rmSync(scratch, { recursive: true, force: true })
})

interface Ended {
  status: number | null
  stdout: Buffer
  stderr: string
}

/** A file about a process; empty if the process has ended. */
function procfs(pid: string, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch {
    return ''
  }
}

/** The processes that were started for a run of this test, which have its TMPDIR. */
const left = () => readdirSync('/proc').filter((name) => /^\d+$/.test(name) && procfs(name, 'environ').split('\0').includes(`TMPDIR=${scratch}`))

function start(args: string[], env: NodeJS.ProcessEnv = {}, before: readonly string[] = []): { child: ChildProcess; ended: Promise<Ended> } {
  const [first, ...more] = [...before, process.execPath, commandLine, 'lab', ...args] as [string, ...string[]]
  const child = spawn(first, more, { env: { ...process.env, TMPDIR: scratch, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (data: Buffer) => out.push(data))
  child.stderr.on('data', (data: Buffer) => err.push(data))
  const ended = new Promise<Ended>((resolve) =>
    child.on('close', (status) => resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() }))
  )
  return { child, ended }
}

/** Runs the lab to its end, and expects that it leaves no process and no folder, whatever happened. */
async function lab(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const ended = await start(args, env).ended
  await expectNothingLeft(env['NODE_KVM_LAB_CACHE'])
  return ended
}

/** The folders of runs, and of half-made entries, whose lock nobody holds: other processes may be at work in the same cache. */
async function abandoned(cache: string): Promise<string[]> {
  const runs = join(cache, runsName)
  const inUse = readdirSync(cache).filter((name) => name.includes(making))
  const folders = [...inUse.map((name) => join(cache, name)), ...(existsSync(runs) ? readdirSync(runs).map((name) => join(runs, name)) : [])]
  const found = []
  for (const folder of folders) {
    const release = await tryAcquire(join(folder, 'lock')).catch(() => null)
    if (release) found.push(folder)
    release?.()
  }
  return found
}

async function expectNothingLeft(cache = cacheFolder()): Promise<void> {
  expect(left()).toEqual([])
  if (existsSync(cache)) expect(await abandoned(cache)).toEqual([])
}

const inNpt = (...command: string[]) => lab(['run', 'npt', '--timeout', limit, '--', ...command])

describe('a command line that cannot be run', () => {
  test.each([
    [['run', 'epd', '--', 'true'], "there is no lane 'epd'; the lanes are ept, npt, ept-shadow, npt-shadow"],
    [['run', 'npt', '--kernel', '5.10', '--', 'true'], "there is no kernel '5.10'; the kernels are 6.1, 6.12"],
    [['run', 'npt'], 'a command is needed after --'],
    [['run'], 'a lane is needed'],
    [['run', 'npt', 'true'], 'the command comes after --: node-kvm lab run npt -- true'],
    [['run', 'npt', '--timeout', '0', '--', 'true'], "--timeout takes whole seconds from 1 to 86400, not '0'"],
    [['run', 'npt', '--timeout', 'soon', '--', 'true'], "not 'soon'"],
    [['run', 'npt', '--out-limit', '1X', '--', 'true'], "--out-limit takes bytes, such as 4096, 512M or 2T, not '1X'"],
    [['run', 'npt', '--json', '--', 'true'], 'lab run takes no --json'],
    [['prepare', '--lane', 'sun'], "there is no lane 'sun'"],
    [['list', 'more'], 'lab list takes no command'],
    [['dance'], "lab has no 'dance'"],
    [[], 'lab needs to be told what to do']
  ])('%j is refused', async (args, message) => {
    const { status, stderr } = await lab(args)
    expect(stderr).toContain(message)
    expect(status).toBe(2)
  })
  test('list and help say what there is', async () => {
    const { lanes, kernels } = JSON.parse((await lab(['list', '--json'])).stdout.toString())
    expect(lanes.map(({ name }: { name: string }) => name)).toEqual(['ept', 'npt', 'ept-shadow', 'npt-shadow'])
    expect(kernels).toEqual(['6.1', '6.12'])
    expect((await lab(['--help'])).stdout.toString()).toContain('usage: node-kvm lab run LANE')
  })
})

describe('a command in a lane', () => {
  test('sees an AMD machine with nested paging; its output and status come back', async () => {
    const { status, stdout, stderr } = await inNpt('sh', '-c', 'node-kvm doctor --json; echo a word aside >&2; exit 7')
    expect(JSON.parse(stdout.toString()).host).toMatchObject({ vendor: 'AMD', mmu: 'npt' })
    expect(stderr).toContain('\na word aside\n')
    expect(status).toBe(7)
  })
  test('prints a megabyte, every byte of which arrives', async () => {
    const { status, stdout } = await inNpt(
      'node',
      '-e',
      'process.stdout.write(Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))))'
    )
    expect(stdout.equals(Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))))).toBe(true)
    expect(status).toBe(0)
  })
  test('dies by a signal', async () => expect((await inNpt('sh', '-c', 'kill -SEGV $$')).status).toBe(139))
  test('does not exist, which is told with its status', async () => {
    const { status, stderr } = await inNpt('no-such-program')
    expect(stderr).toContain('no-such-program: not found')
    expect(status).toBe(127)
  })
  test('never ends, until the limit ends it', async () => {
    const { status, stderr } = await lab(['run', 'npt', '--timeout', '8', '--', 'sleep', '1000'])
    expect(stderr).toContain('the limit of 8 seconds is over')
    expect(status).toBe(124)
  })
  test('leaves something running and a full disk behind, and its status is told all the same', async () => {
    expect((await inNpt('sh', '-c', 'sleep 1000 & dd if=/dev/zero of=/results/big bs=1M; exit 5')).status).toBe(5)
  })
  test('brings its guest down, and the end of the console is told', async () => {
    const { status, stderr } = await inNpt('sh', '-c', 'echo c >/proc/sysrq-trigger')
    expect(stderr).toContain('Kernel panic - not syncing: sysrq triggered crash')
    expect(stderr).toMatch(/Linux 6.1 in lane npt went down by a panic/)
    expect(status).toBe(125)
  })
  test('leaves files in /results, which come back; two runs at once do not meet', async () => {
    const outs = ['one', "we ird'two"].map((name) => join(scratch, name))
    const into = (out: string) => [
      'run',
      'npt',
      '--timeout',
      limit,
      '--out',
      out,
      '--',
      'sh',
      '-c',
      `echo "${out}" >/results/name; ln -s / /results/all`
    ]
    const ended = await Promise.all(outs.map((out) => start(into(out)).ended))
    for (const [index, out] of outs.entries()) {
      expect(ended[index]).toMatchObject({
        status: 0,
        stderr: expect.stringContaining('only files and folders are copied, but not 1 symbolic link: "all"')
      })
      expect(readdirSync(out)).toEqual(['results'])
      expect(readdirSync(join(out, 'results'))).toEqual(['name'])
      expect(readFileSync(join(out, 'results/name'), 'utf8')).toBe(`${out}\n`)
    }
    // Old results are not returned for new ones.
    expect(await lab(into(outs[0] as string))).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('/one/results is not an empty folder: remove it')
    })
    await expectNothingLeft()
  })
  test('leaves more than the limit, and what is below it comes, and is not taken for all', async () => {
    const words = 'echo it >/results/good; dd if=/dev/zero of=/results/big bs=1M count=2; exit 3'
    const { status, stderr } = await lab(['run', 'npt', '--timeout', limit, '--out', scratch, '--out-limit', '1M', '--', 'sh', '-c', words])
    expect(readdirSync(join(scratch, 'results'))).toEqual(['good'])
    expect(stderr).toContain('the command ended with 3, and of its results 1 did not arrive')
    expect(stderr).toContain('"big": with everything before it this is more than the limit of 1048576 bytes')
    expect(status).toBe(125)
  })
})

describe('a saved state', () => {
  const tell = ['date +%s; head -c 16 /dev/urandom | xxd -p; ls /sys/module | grep -x "kvm_[a-z]*"']
  test.each([
    ['npt', 'kvm_amd'],
    ['ept', 'kvm_intel']
  ])('is gone on from in %s, where each run has the hour and random numbers of its own', async (lane, module) => {
    const runs = []
    for (let count = 0; count < 2; count++) {
      const { status, stdout, stderr } = await lab(['run', lane, '--timeout', limit, '--', 'sh', '-c', ...tell])
      expect(status).toBe(0)
      expect(stderr).toContain(`restoring Linux 6.1 in lane ${lane}`)
      const [hour, random, loaded] = stdout.toString().split('\n')
      expect(Math.abs(Number(hour) - Date.now() / 1000)).toBeLessThan(3600)
      expect(loaded).toBe(module)
      runs.push(random)
    }
    expect(runs[0]).toMatch(/^[0-9a-f]{32}$/)
    expect(runs[0]).not.toBe(runs[1])
  })
})

/** Waits until the guest is being emulated and returns the emulator's process. */
async function emulator(child: ChildProcess, name = 'qemu-system'): Promise<number> {
  for (;;) {
    const pids = left().filter((pid) => Number(pid) !== child.pid && procfs(pid, 'cmdline').includes(name))
    if (pids.length > 0) return Math.min(...pids.map(Number))
    await sleep(50)
  }
}

/** The inodes of the sockets that listen in the network of a process: proc_pid_net(5), state 0A. */
const listening = (pid: number | 'self') =>
  ['tcp', 'tcp6'].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === '0A')
      .map((fields) => fields[9])
  )
const socketsOf = (pid: string) =>
  readdirSync(`/proc/${pid}/fd`).flatMap((name) => /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${name}`))?.[1] ?? [])

describe('the screen of a Bochs', () => {
  test.each([
    ['that boots', ['--cold']],
    ['that goes on from a saved state', []]
  ])('%s listens where nobody is', async (_, how) => {
    const { child, ended } = start(['run', 'ept', '--timeout', limit, ...how, '--', 'sh', '-c', 'echo up; sleep 1000'])
    await new Promise((resolve) => child.stdout?.once('data', resolve))
    const pid = await emulator(child, 'bochs-bin')
    // The screen listens, and not in this network.
    const own = listening(pid)
    expect(socketsOf(String(pid)).some((socket) => own.includes(socket))).toBe(true)
    const here = listening('self')
    for (const each of left()) for (const socket of socketsOf(each)) expect(here).not.toContain(socket)
    child.kill('SIGTERM')
    expect((await ended).status).toBe(143)
    await expectNothingLeft()
  })
  test('is refused where it cannot be hidden, unless that is asked for', async () => {
    // This unshare always fails.
    const bin = join(scratch, 'bin')
    mkdirSync(bin)
    writeFileSync(join(bin, 'unshare'), '#!/bin/sh\necho unshare: it is forbidden >&2; exit 1\n', { mode: 0o755 })
    const env = { PATH: `${bin}:${process.env['PATH']}` }
    const refused = await lab(['run', 'ept', '--timeout', limit, '--', 'true'], env)
    expect(refused.stderr).toContain('unshare --net: unshare: it is forbidden')
    expect(refused.stderr).toContain('give lab run and lab prepare the option --screen-on-network')
    expect(refused.status).toBe(125)
    // The screen listens here, too, but on a network without other users.
    const apart = [findProgram('unshare') as string, '--map-root-user', '--net']
    const { ended } = start(['run', 'ept', '--timeout', limit, '--screen-on-network', '--', 'echo', 'it runs'], env, apart)
    expect(await ended).toMatchObject({ status: 0, stdout: Buffer.from('it runs\n') })
  })
})

describe('what ends a run from outside', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143]
  ] as const)('%s ends the emulator too', async (signal, expected) => {
    const { child, ended } = start(['run', 'npt', '--', 'sleep', '1000'])
    await emulator(child)
    child.kill(signal)
    expect((await ended).status).toBe(expected)
    await sleep(100)
    await expectNothingLeft()
  })
  test('SIGKILL, which it cannot notice, ends the emulator all the same, and the next run removes its folder', async () => {
    const { child, ended } = start(['run', 'npt', '--', 'sleep', '1000'])
    await emulator(child)
    child.kill('SIGKILL')
    await ended
    while (left().length > 0) await sleep(50)
    expect((await abandoned(cacheFolder())).length).toBeGreaterThan(0)
    expect((await inNpt('true')).status).toBe(0)
  })
  test('the death of an emulator is told', async () => {
    const { child, ended } = start(['run', 'npt', '--', 'sh', '-c', 'echo up; sleep 1000'])
    // If the emulator died before the command began, the run would boot anew.
    await new Promise((resolve) => child.stdout?.once('data', resolve))
    process.kill(await emulator(child), 'SIGKILL')
    const { status, stderr } = await ended
    expect(stderr).toContain('Linux 6.1 in lane npt went down')
    expect(status).toBe(125)
    await expectNothingLeft()
  })
})

describe('what is not to be had', () => {
  const empty = () => ({ NODE_KVM_LAB_CACHE: join(scratch, 'cache') })
  test('a program that this machine lacks is told with its package', async () => {
    const bare = () => lab(['run', 'npt', '--', 'true'], { ...empty(), PATH: scratch })
    const missing = (name: string, from: string) => `${name} is not on this machine; sudo apt-get install ${from} installs it`
    expect(await bare()).toMatchObject({ status: 125, stderr: expect.stringContaining(missing('flock', 'util-linux')) })
    symlinkSync(findProgram('flock') as string, join(scratch, 'flock'))
    expect(await bare()).toMatchObject({ status: 125, stderr: expect.stringContaining(missing('apt-get', 'apt')) })
  })
  test('a lack of room for the run is told', async (context) => {
    if (process.getuid?.() !== 0) return skip(context, 'needs root, to mount a disk of two megabytes')
    const runs = join(cacheFolder(), runsName)
    mkdirSync(runs, { recursive: true })
    const words = [
      '-m',
      'sh',
      '-c',
      'mount -t tmpfs -o size=2m,mode=700 none "$0" && exec "$@"',
      runs,
      process.execPath,
      commandLine,
      'lab',
      'run',
      'npt',
      '--',
      'true'
    ]
    const { status, stderr } = spawnSync('unshare', words, { env: { ...process.env, TMPDIR: scratch }, encoding: 'utf8' })
    expect(stderr).toContain('no disk space left for a run of the lab; set NODE_KVM_LAB_CACHE to another folder')
    expect(status).toBe(125)
    await expectNothingLeft()
  })
  test('a mirror that does not answer is told', async () => {
    const { status, stderr } = await lab(['prepare', '--lane', 'npt'], { ...empty(), NODE_KVM_LAB_MIRROR: 'http://127.0.0.1:9/debian' })
    expect(stderr).toContain('apt-get update')
    expect(stderr).toContain('127.0.0.1')
    expect(status).toBe(125)
  })
})

describe('the cache of a run', () => {
  const previous = process.env['NODE_KVM_LAB_CACHE']
  beforeEach(() => {
    process.env['NODE_KVM_LAB_CACHE'] = join(scratch, 'cache')
  })
  afterEach(() => {
    if (previous === undefined) delete process.env['NODE_KVM_LAB_CACHE']
    else process.env['NODE_KVM_LAB_CACHE'] = previous
  })
  /** A cache for this test: links to the real cache's entries, but copies of the entries of one kind. */
  function borrow(kind: string): string[] {
    const real = previous ?? join(process.env['XDG_CACHE_HOME'] ?? join(process.env['HOME'] as string, '.cache'), 'node-kvm/lab')
    mkdirSync(cacheFolder(), { recursive: true })
    const entries = readdirSync(real).filter((name) => !name.startsWith('state-') && !name.includes(making) && name !== runsName)
    for (const name of entries) {
      if (name.startsWith(kind)) cpSync(join(real, name), join(cacheFolder(), name), { recursive: true, preserveTimestamps: true })
      else symlinkSync(join(real, name), join(cacheFolder(), name))
    }
    return entries.filter((name) => name.startsWith(kind)).map((name) => join(cacheFolder(), name))
  }
  const borrowed = (...args: string[]) =>
    lab(['run', 'npt', '--timeout', limit, ...args, '--', 'echo', 'it runs'], { NODE_KVM_LAB_CACHE: cacheFolder() })
  const states = () => readdirSync(cacheFolder()).filter((name) => name.startsWith('state-'))

  test('is mended by the next run where it is broken', async () => {
    for (const folder of borrow('base-')) truncateSync(join(folder, 'base.img'), 1 << 20)
    const { status, stdout } = await borrowed('--cold')
    expect(stdout.toString()).toBe('it runs\n')
    expect(status).toBe(0)
    expect(states()).toEqual([])
  })
  test('the run boots where the saved state is of no use, says so, and the next one saves another', async () => {
    borrow('none')
    expect(await borrowed()).toMatchObject({ status: 0, stderr: expect.stringContaining('once, to save its state') })
    const path = join(cacheFolder(), states()[0] as string, 'machine')
    // The file keeps the right size and time, so that only the emulator can notice.
    const { size, mtime } = statSync(path)
    writeFileSync(path, Buffer.alloc(size, 'no state'))
    utimesSync(path, mtime, mtime)
    const fallen = await borrowed()
    expect(fallen).toMatchObject({ status: 0, stdout: Buffer.from('it runs\n') })
    expect(fallen.stderr).toContain('the saved state is of no use')
    expect(states()).toEqual([])
    expect(await borrowed()).toMatchObject({ status: 0, stderr: expect.stringContaining('once, to save its state') })
  })
})
