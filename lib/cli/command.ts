/** What a command of `node-kvm` is. */
import { parseArgs } from 'node:util'
import { kernels, lanes } from '../../lab/lanes.js'

/** Of one command, as util.parseArgs() takes them. */
export type Options = Record<string, { type: 'string' | 'boolean'; short?: string }>
type Values<Config extends Options> = ReturnType<typeof parseArgs<{ options: Config; allowPositionals: true }>>['values']

/** A command line that cannot be run: the message, and how it is used. */
export class UsageError extends Error {}

/** A command, with the options that are its own. */
export interface Command<Config extends Options = Options> {
  usage: string
  options: Config
  /** Whether it can be run in an emulated machine, by --lane. */
  inLanes?: boolean
  /**
   * @param words what else stands on the command line
   * @param program what stands behind `--`
   * @returns the exit status
   */
  run(values: Values<Config>, words: string[], program: string[]): number | Promise<number>
}

/** Types the values by the options. */
export const command = <const Config extends Options>(definition: Command<Config>) => definition as unknown as Command

/** For commands that take options alone. */
export function refuseWords(words: readonly string[], program: readonly string[] = []): void {
  const [first] = [...words, ...program]
  if (first !== undefined) throw new UsageError(`this command takes no '${first}'`)
}

/** A number as people write addresses and process ids. */
export function parseNumber(name: string, text: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw new UsageError(`--${name} is '${text}'; it must be a number, such as 4711 or 0xa000`)
  return value
}

/** What the usage of a command says that is known in lanes. */
export const laneUsage = `  --lane LANE    in an emulated machine: ${lanes.map(({ name }) => name).join(', ')} (node-kvm lab --help)
  --kernel K     its kernel: ${kernels.map(({ version }) => version).join(' or ')}`

const laneOptions = { lane: { type: 'string' }, kernel: { type: 'string' } } as const satisfies Options
const common = { help: { type: 'boolean', short: 'h' } } as const satisfies Options

/** The words of a command line without these options. */
function without(
  names: readonly string[],
  argv: string[],
  tokens: { kind: string; name?: string; index: number; inlineValue?: boolean | undefined }[]
): string[] {
  const dropped = new Set(
    tokens
      .filter(({ kind, name }) => kind === 'option' && names.includes(name ?? ''))
      .flatMap(({ index, inlineValue }) => (inlineValue ? [index] : [index, index + 1]))
  )
  return argv.filter((_, index) => !dropped.has(index))
}

/**
 * Runs a command line in an emulated machine.
 * @param command `node-kvm`, and what stands behind it
 * @returns the exit status
 */
export type LaneRunner = (lane: string, kernel: string | undefined, command: string[]) => Promise<number>

/** Parses a command line and runs the command, here or in a lane. */
export async function execute(
  { usage, options, inLanes = false, run }: Command,
  name: string,
  argv: string[],
  runInLane: LaneRunner
): Promise<number> {
  const border = argv.indexOf('--')
  const own = border < 0 ? argv : argv.slice(0, border)
  const program = border < 0 ? [] : argv.slice(border + 1)
  let parsed: ReturnType<typeof parse>
  const parse = () =>
    parseArgs({ args: own, allowPositionals: true, tokens: true, options: { ...(inLanes ? laneOptions : {}), ...options, ...common } as Options })
  try {
    parsed = parse()
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  const { help, ...values } = parsed.values
  if (help) {
    console.log(usage)
    return 0
  }
  if (!inLanes) return run(values, parsed.positionals, program)
  const { lane, kernel, ...rest } = values
  if (lane === undefined && kernel !== undefined) throw new UsageError('--kernel is for --lane')
  if (lane === undefined) return run(rest, parsed.positionals, program)
  const words = ['node-kvm', name, ...without(['lane', 'kernel'], own, parsed.tokens), ...(border < 0 ? [] : ['--', ...program])]
  return runInLane(lane as string, kernel as string | undefined, words)
}
