/** One run: it makes a disk, starts an emulator, passes on the guest's output while it comes, and collects the results. */
import { mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { discard, refused, runScratch } from './cache.js'
import { GuestConsole, type Sink, type Stage } from './console.js'
import { smallestDisk } from './disk.js'
import type { Choices } from './emulator.js'
import { explained, LabError, labFailed } from './errors.js'
import { follow } from './follow.js'
import { resultsFolder, statusName } from './guest.js'
import type { Kernel, Lane } from './lanes.js'
import { Machine } from './machine.js'
import { emulators, prepare } from './prepare.js'
import type { Progress } from './progress.js'
import { fillRun, findProject, runDisk, runDiskSize } from './project.js'
import { copyFromDisk, defaultLimit, incomplete, omissions, prepareOut, readFromDisk } from './results.js'
import { files, type Images, lastWords } from './run-folder.js'
import { savedState } from './saved-state.js'

export interface RunOptions extends Choices {
  lane: Lane
  kernel: Kernel
  command: readonly string[]
  /** In seconds, from the emulator's start to its end. */
  timeoutSeconds?: number
  /** Boot from power-on even if there is a saved state. */
  cold?: boolean
  /** The folder in which a folder of that name takes the guest's /results. */
  out?: string
  /** The limit of the results' size in bytes. */
  outLimit?: number
  project?: string
  sink: Sink
  progress: Progress
}

type Run = Required<Pick<RunOptions, 'timeoutSeconds' | 'cold' | 'project' | 'outLimit'>> & RunOptions

/** The words by which a message says how far the guest came. */
const stages: Record<Stage, string> = {
  booting: 'while it booted',
  ready: 'before the command began',
  running: 'while the command ran',
  ended: 'after the command, which left no status',
  dead: 'by a panic or a failure of its own'
}

/** How a machine ended. */
interface Ended {
  /** The command's status, or null if none came back. */
  status: number | null
  /** Whether the command began. */
  began: boolean
  /** The reason why there is no status. */
  failure: LabError
}

/** Reads the status and the results from the disk, which may hold anything that the guest wrote. */
async function collect(image: string, { out, outLimit, progress }: Run): Promise<number | null> {
  const text = (await readFromDisk(image, statusName)) ?? ''
  const status = /^\d{1,3} *$/.test(text) && Number(text) <= 255 ? Number(text) : null
  if (out === undefined || status === null) return status
  try {
    const left = await copyFromDisk(image, basename(resultsFolder), out, outLimit)
    const omitted = omissions(left)
    if (omitted !== null) progress.note(omitted)
    const failure = incomplete(left, out, status)
    if (failure) throw failure
  } catch (error) {
    throw explained(error, 'for the results', '--out')
  }
  return status
}

const nameOf = ({ kernel, lane }: Pick<RunOptions, 'kernel' | 'lane'>) => `Linux ${kernel.version} in lane ${lane.name}`

/** Runs the machine in the folder, which holds the disk of the run, to its end. */
async function runMachine(options: Run, images: Images, folder: string, state: string | undefined): Promise<Ended> {
  const { lane, timeoutSeconds, sink, progress } = options
  const name = nameOf(options)
  const start = await emulators[lane.emulator].start(images, state === undefined ? 'run' : 'restore', options)
  progress.say(`${state === undefined ? 'booting' : 'restoring'} ${name}`)
  const screen = new GuestConsole(join(folder, files.console), join(folder, files.output), sink)
  const machine = new Machine(start, folder, images, state)
  let began = false
  let trouble: LabError | undefined
  const onRunning = () => {
    began = true
    progress.done()
  }
  try {
    await follow(machine, screen, { limit: timeoutSeconds, onRunning })
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    trouble = error
  } finally {
    await machine.stop()
    progress.done()
    screen.close()
  }
  const status = screen.stage === 'ended' && !trouble ? await collect(join(folder, files.run), options) : null
  const what = trouble ? `: ${trouble.message}; it came to an end` : ' went down'
  const failure = new LabError(`${name}${what} ${stages[screen.stage]}. The end of its console:\n${lastWords(folder)}`, trouble?.status ?? labFailed)
  return { status, began: began || screen.stage === 'ended', failure }
}

/** Runs a machine with a disk made for this run, and removes everything afterwards. */
async function attempt(
  options: Run,
  images: Images,
  from: (runDiskSize: number) => Promise<string | undefined>
): Promise<Ended & { state?: string }> {
  const { lane, project, progress, command } = options
  const { path: folder, remove } = await runScratch()
  try {
    progress.say('copying the package')
    const content = join(folder, 'content')
    mkdirSync(content)
    fillRun(content, { project, command, environment: { NODE_KVM_LAB: lane.name } })
    const state = await from(runDiskSize(content))
    await runDisk(join(folder, files.run), content, lane)
    return { ...(await runMachine(options, images, folder, state)), ...(state === undefined ? {} : { state }) }
  } catch (error) {
    throw explained(error, 'for a run of the lab', 'NODE_KVM_LAB_CACHE')
  } finally {
    progress.done()
    remove()
  }
}

type Where = Required<Pick<RunOptions, 'lane' | 'kernel' | 'project' | 'progress'>> & Choices

/** Returns the saved state, and makes it if there is none. If that fails, the run boots cold. */
async function stateFor(
  { lane, progress, screenOnNetwork = false, ...options }: Where,
  images: Images,
  runDiskSize: number
): Promise<string | undefined> {
  const emulator = emulators[lane.emulator]
  try {
    return await savedState({ emulator, images, runDiskSize, choices: { screenOnNetwork } }, () =>
      progress.say(`booting ${nameOf({ lane, ...options })} once, to save its state for the runs to come`)
    )
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    progress.note(`there is no saved state: ${error.message}`)
    return undefined
  }
}

/** Prepares what runs in a lane need and share, with the saved state from which most of them go on. */
export async function prepareRuns(where: Where): Promise<void> {
  try {
    const images = await prepare(where.lane, where.kernel, where.project, where.progress)
    await stateFor(where, images, smallestDisk)
  } catch (error) {
    throw refused(error)
  }
}

/** Runs a command in a lane and returns its exit status. */
export async function run(options: RunOptions): Promise<number> {
  try {
    return await runToEnd(options)
  } catch (error) {
    throw refused(error)
  }
}

async function runToEnd(options: RunOptions): Promise<number> {
  const { project = findProject(), timeoutSeconds = 600, cold = false, outLimit = defaultLimit, progress } = options
  const all = { ...options, project, timeoutSeconds, cold, outLimit }
  if (options.out !== undefined) prepareOut(options.out)
  const images = await prepare(options.lane, options.kernel, project, progress)
  let ended = await attempt(all, images, async (size) => (cold ? undefined : stateFor(all, images, size)))
  if (ended.state !== undefined && ended.status === null && !ended.began) {
    progress.note(`the saved state is of no use: it is made anew next time, and this run boots. ${ended.failure.message}`)
    await discard(ended.state)
    ended = await attempt(all, images, async () => undefined)
  }
  if (ended.status === null) throw ended.failure
  return ended.status
}
