/** The definition of a `node-kvm` command. */
import { parseArgs } from 'node:util'
import { kernels, lanes } from '../../lab/lanes.js'

/** The options of a command, in the form of util.parseArgs(). */
export type Options = Record<string, { type: 'string' | 'boolean'; short?: string }>
type Values<Config extends Options> = ReturnType<typeof parseArgs<{ options: Config; allowPositionals: true }>>['values']

/** An error for a command line that cannot be run. The usage is printed with its message. */
export class UsageError extends Error {}

/** A command with its own options. */
export interface Command<Config extends Options = Options> {
  usage: string
  options: Config
  /** Whether --lane can run it in an emulated machine. */
  inLanes?: boolean
  /**
   * @param words the other words of the command line
   * @param program the words after `--`
   * @returns the exit status
   */
  run(values: Values<Config>, words: string[], program: string[]): number | Promise<number>
}

/** Derives the types of the values from the options. */
export const command = <const Config extends Options>(definition: Command<Config>) => definition as unknown as Command

/** Refuses words on the command line, for commands that take only options. */
export function refuseWords(words: readonly string[], program: readonly string[] = []): void {
  const [first] = [...words, ...program]
  if (first !== undefined) throw new UsageError(`this command takes no '${first}'`)
}

/** Parses a number in the forms that people use for addresses and process ids. */
export function parseNumber(name: string, text: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value)) throw new UsageError(`--${name} is '${text}'; it must be a number, such as 4711 or 0xa000`)
  return value
}

/** The part of a command's usage that describes lanes. */
export const laneUsage = `  --lane LANE    in an emulated machine: ${lanes.map(({ name }) => name).join(', ')} (node-kvm lab --help)
  --kernel K     its kernel: ${kernels.map(({ version }) => version).join(' or ')}`

const laneOptions = { lane: { type: 'string' }, kernel: { type: 'string' } } as const satisfies Options
const common = { help: { type: 'boolean', short: 'h' } } as const satisfies Options

/** Removes these options from the words of a command line. */
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
 * @param command `node-kvm` and the words after it
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
