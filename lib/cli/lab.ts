/** `node-kvm lab`: emulated Intel and AMD machines. */
import { findKernel, findLane, type Kernel, kernels, type Lane, lanes } from '../../lab/lanes.js'
import { Progress } from '../../lab/progress.js'
import { findProject } from '../../lab/project.js'
import { prepareRuns, run } from '../../lab/run.js'
import { visibleLines } from '../abi/text.js'
import { command, UsageError } from './command.js'
import { writer } from './terminal.js'

const usage = `usage: node-kvm lab run LANE [--kernel K] [--timeout SECONDS] [--out FOLDER] [--out-limit SIZE] [--cold] [--screen-on-network] -- COMMAND...
       node-kvm lab prepare [--lane LANE] [--kernel K] [--screen-on-network]
       node-kvm lab list [--json]

  run      boots the lane's machine, runs the command in a copy of this folder's package, passes its output and exit status on
  prepare  downloads and builds what runs need, ahead of time
  list     the lanes and kernels

  --kernel K         ${kernels.map(({ version }) => version).join(' or ')}; ${kernels[0]?.version} without it
  --timeout SECONDS  the whole run's limit; 600 without it
  --out FOLDER       makes the folder FOLDER/results of the files that the command leaves in /results; what is there already must be empty
  --out-limit SIZE   how much that may be, holes of files included, in bytes, K, M, G or T; 1G without it
  --cold             boots from power-on; without it a run goes on from a state saved after the first boot
  --screen-on-network
                     in ept, lets Bochs show its screen, without a password, to whoever reaches this machine, where it cannot be
                     given a network of its own

lanes:
${lanes.map(({ name, says }) => `  ${name.padEnd(12)} ${says}`).join('\n')}`

const options = {
  kernel: { type: 'string' },
  lane: { type: 'string' },
  timeout: { type: 'string' },
  out: { type: 'string' },
  'out-limit': { type: 'string' },
  cold: { type: 'boolean' },
  'screen-on-network': { type: 'boolean' },
  json: { type: 'boolean' }
} as const
const allowed: Record<string, string[]> = {
  run: ['kernel', 'timeout', 'out', 'out-limit', 'cold', 'screen-on-network'],
  prepare: ['lane', 'kernel', 'screen-on-network'],
  list: ['json']
}

function refuse(message: string): never {
  throw new UsageError(message)
}

interface Values {
  kernel?: string | undefined
  lane?: string | undefined
  timeout?: string | undefined
  out?: string | undefined
  'out-limit'?: string | undefined
  cold?: boolean | undefined
  'screen-on-network'?: boolean | undefined
  json?: boolean | undefined
}

const defaultKernel = kernels[0] as Kernel
const chosenKernel = ({ kernel }: Values) => (kernel === undefined ? defaultKernel : findKernel(kernel))

function seconds(text: string | undefined): number | undefined {
  const value = Number(text)
  if (text !== undefined && !(Number.isInteger(value) && value > 0 && value <= 86_400))
    refuse(`--timeout takes whole seconds from 1 to 86400, not '${text}'`)
  return text === undefined ? undefined : value
}

/** Parses a size: 1G means 2^30 bytes. */
function bytes(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const [, digits = '', unit = ''] = /^(\d+)([KMGT]?)$/.exec(text) ?? []
  const value = Number(digits) * 1024 ** ' KMGT'.indexOf(unit || ' ')
  if (!(digits && value > 0 && Number.isSafeInteger(value))) refuse(`--out-limit takes bytes, such as 4096, 512M or 2T, not '${text}'`)
  return value
}

async function runCommand([name, ...more]: string[], values: Values, program: string[]): Promise<number> {
  if (name === undefined) return refuse(`a lane is needed: ${lanes.map((lane) => lane.name).join(', ')}`)
  const lane = findLane(name)
  const kernel = chosenKernel(values)
  if (more.length > 0) return refuse(`the command comes after --: node-kvm lab run ${name} -- ${more.join(' ')}`)
  if (program.length === 0) return refuse('a command is needed after --')
  const timeoutSeconds = seconds(values.timeout)
  const outLimit = bytes(values['out-limit'])
  return run({
    lane,
    kernel,
    command: program,
    cold: values.cold === true,
    screenOnNetwork: values['screen-on-network'] === true,
    sink: { out: writer(process.stdout), err: writer(process.stderr) },
    progress: new Progress(visibleLines),
    ...(timeoutSeconds === undefined ? {} : { timeoutSeconds }),
    ...(outLimit === undefined ? {} : { outLimit }),
    ...(values.out === undefined ? {} : { out: values.out })
  })
}

async function prepareCommand(names: string[], values: Values): Promise<number> {
  if (names.length > 0) return refuse(`prepare takes no '${names[0]}'`)
  const some: readonly Lane[] = values.lane === undefined ? lanes.slice(0, 2) : [findLane(values.lane)]
  const versions = values.kernel === undefined ? kernels : [findKernel(values.kernel)]
  const progress = new Progress(visibleLines)
  try {
    for (const kernel of versions)
      for (const lane of some)
        await prepareRuns({ lane, kernel, project: findProject(), progress, screenOnNetwork: values['screen-on-network'] === true })
  } finally {
    progress.done()
  }
  console.log('The lab is ready.')
  return 0
}

function list(values: Values): number {
  if (values.json)
    console.log(
      JSON.stringify(
        {
          lanes: lanes.map(({ name, emulator, module, says }) => ({ name, emulator, module, says })),
          kernels: kernels.map(({ version }) => version)
        },
        null,
        2
      )
    )
  else
    console.log(
      [...lanes.map(({ name, says }) => `${name.padEnd(12)} ${says}`), `kernels      ${kernels.map(({ version }) => version).join(', ')}`].join('\n')
    )
  return 0
}

/** Runs the lab. The exit status of `lab run` is that of the command, or 124 or 125 if the lab itself failed. */
export const lab = command({
  usage,
  options,
  run(values, [name = '', ...rest], program) {
    if (!Object.hasOwn(allowed, name)) return refuse(name ? `lab has no '${name}'` : 'lab needs to be told what to do')
    const stray = Object.keys(values).find((option) => !allowed[name]?.includes(option))
    if (stray) return refuse(`lab ${name} takes no --${stray}`)
    if (name === 'run') return runCommand(rest, values, program)
    if (program.length > 0 || (name === 'list' && rest.length > 0)) return refuse(`lab ${name} takes no command`)
    return name === 'prepare' ? prepareCommand(rest, values) : list(values)
  }
})
