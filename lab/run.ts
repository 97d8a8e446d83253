/** One run: a disk for it, an emulator, what the guest prints while it prints it, and what it leaves. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startBochs } from './bochs.js'
import { Console, type Sink, type Stage } from './console.js'
import { copyFromDisk, readFromDisk } from './disk.js'
import { files, lastWords, type Start } from './emulator.js'
import { LabError, outOfTime } from './errors.js'
import { resultsFolder } from './guest.js'
import type { Kernel, Lane } from './lanes.js'
import { undoAtExit } from './leftovers.js'
import { prepare } from './prepare.js'
import { Progress } from './progress.js'
import { findProject, runDisk } from './project.js'
import { startQemu } from './qemu.js'

export interface RunOptions {
  lane: Lane
  kernel: Kernel
  command: readonly string[]
  /** Seconds from the emulator's start to its end. */
  timeoutSeconds?: number
  /** Where the guest's /results go. */
  out?: string
  project?: string
  sink?: Sink
  progress?: Progress
}

const standardStreams: Sink = { out: (data) => process.stdout.write(data), err: (data) => process.stderr.write(data) }
/** How far the guest came, as a message says it. */
const stages: Record<Stage, string> = {
  booting: 'while it booted',
  ready: 'before the command began',
  running: 'while the command ran',
  ended: 'after the command, which left no status',
  dead: 'by a panic or a failure of its own'
}
/** From the guest's last word to the emulator's end. */
const lingerMs = 10_000
const pollMs = 50

/** Its own process group, so that it ends whole; its own time limit, should this process be killed in a way that it cannot notice. */
function launch({ words, env }: Start, folder: string, limit: number): { child: ChildProcess; stop: () => void } {
  const log = openSync(join(folder, files.emulator), 'a')
  const child = spawn('timeout', ['-s', 'KILL', String(limit + 30), ...words], { cwd: folder, env, detached: true, stdio: ['ignore', log, log] })
  child.on('error', () => {})
  const stop = undoAtExit(() => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, 'SIGKILL')
  })
  return { child, stop }
}

async function follow(child: ChildProcess, screen: Console, limit: number, progress: Progress, name: string): Promise<void> {
  const deadline = Date.now() + limit * 1000
  let ended: number | undefined
  let closed = child.pid === undefined
  child.on('close', () => {
    closed = true
  })
  progress.say(`booting ${name}`)
  while (!closed) {
    await sleep(pollMs)
    const before = screen.stage
    const stage = screen.poll()
    if (stage !== before && stage === 'running') progress.done()
    if (stage === 'ended' || stage === 'dead') ended ??= Date.now() + (stage === 'dead' ? 1000 : lingerMs)
    if (ended !== undefined && Date.now() > ended) return
    if (Date.now() > deadline) throw new LabError(`the limit of ${limit} seconds is over (--timeout sets another)`, outOfTime)
  }
}

async function stopped(child: ChildProcess, stop: () => void): Promise<void> {
  stop()
  while (child.pid !== undefined && child.exitCode === null && child.signalCode === null) await sleep(10)
}

async function collect(image: string, out: string | undefined): Promise<number | null> {
  const status = await readFromDisk(image, '/status')
  if (out !== undefined) {
    mkdirSync(out, { recursive: true })
    await copyFromDisk(image, resultsFolder, out)
  }
  return status === null || status.trim() === '' ? null : Number(status)
}

async function boot(
  options: Required<Pick<RunOptions, 'timeoutSeconds' | 'sink' | 'progress'>> & RunOptions,
  folder: string,
  start: Start
): Promise<number> {
  const { lane, kernel, timeoutSeconds, sink, progress, out } = options
  const name = `Linux ${kernel.version} in lane ${lane.name}`
  const screen = new Console(join(folder, files.console), join(folder, files.output), sink)
  const { child, stop } = launch(start, folder, timeoutSeconds)
  let failure: unknown
  try {
    await follow(child, screen, timeoutSeconds, progress, name)
  } catch (error) {
    failure = error
  }
  await stopped(child, stop)
  progress.done()
  screen.close()
  if (failure instanceof LabError)
    throw new LabError(
      `${name}: ${failure.message}; it came to an end ${stages[screen.stage]}. The end of its console:\n${lastWords(folder)}`,
      failure.status
    )
  const status = screen.stage === 'ended' ? await collect(join(folder, 'run.img'), out) : null
  if (status === null) throw new LabError(`${name} went down ${stages[screen.stage]}. The end of its console:\n${lastWords(folder)}`)
  return status
}

/** Runs a command in a lane and returns its exit status. */
export async function run(options: RunOptions): Promise<number> {
  const { lane, kernel, project = findProject(), timeoutSeconds = 600, sink = standardStreams, progress = new Progress() } = options
  const prepared = await prepare(lane, kernel, project, progress)
  const folder = mkdtempSync(join(tmpdir(), 'node-kvm-lab-'))
  const clean = undoAtExit(() => rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }))
  try {
    progress.say('copying the package')
    const content = join(folder, 'content')
    mkdirSync(content)
    const image = join(folder, 'run.img')
    await runDisk(image, content, { lane, project, command: options.command, environment: { NODE_KVM_LAB: lane.name } })
    const images = { ...prepared, run: image }
    const start = await (lane.emulator === 'bochs' ? startBochs : startQemu)(images, folder)
    return await boot({ ...options, timeoutSeconds, sink, progress }, folder, start)
  } finally {
    progress.done()
    clean()
  }
}
