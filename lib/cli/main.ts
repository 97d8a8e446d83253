#!/usr/bin/env node
/** The command line: parse, call the library, print. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { KvmError } from '../abi/errors.js'

interface Command {
  says: string
  run(options: { json: boolean }): Promise<number>
}

// Loaded on demand, so that one command does not pay for another.
const commands: Record<string, Command> = {
  walkthrough: { says: 'replay the KVM thread of October 2020 on a real guest, every step checked', run: async (options) => (await import('./walkthrough.js')).walkthrough(options) },
  doctor: { says: 'what this host can do, and how to get what is missing', run: async (options) => (await import('./doctor.js')).doctor(options) }
}

function usage(): string {
  const list = Object.entries(commands).map(([name, { says }]) => `  ${name.padEnd(14)} ${says}`)
  return ['usage: node-kvm COMMAND [--json] [--lane LANE [--kernel K]]', '', ...list, '  lab            an emulated Intel or AMD machine to run any of this in: node-kvm lab --help', '', '  --json         one JSON document instead of text', '  --lane LANE    in an emulated machine: ept, npt, ept-shadow, npt-shadow; --kernel 6.1 or 6.12', '  --version      the package\'s version', '  --help         this text'].join('\n')
}

function refuse(message: string): number {
  console.error(`node-kvm: ${message}\n\n${usage()}`)
  return 2
}

function version(): string {
  return JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version
}

async function main(argv: string[]): Promise<number> {
  // Its options are its own, and what follows -- is for the guest.
  if (argv[0] === 'lab') return (await import('./lab.js')).lab(argv.slice(1))
  let parsed: { values: { json?: boolean; help?: boolean; version?: boolean; lane?: string; kernel?: string }; positionals: string[] }
  try {
    parsed = parseArgs({ args: argv, allowPositionals: true, options: { json: { type: 'boolean' }, lane: { type: 'string' }, kernel: { type: 'string' }, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } } })
  } catch (error) {
    return refuse((error as Error).message)
  }
  const { values, positionals } = parsed
  if (values.version || values.help || positionals[0] === 'help') {
    console.log(values.version ? version() : usage())
    return 0
  }
  const [name, ...rest] = positionals
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!command) return refuse(name === undefined ? 'a command is needed' : `there is no command '${name}'`)
  if (rest.length > 0) return refuse(`${name} takes no '${rest[0]}'`)
  if (values.kernel !== undefined && values.lane === undefined) return refuse('--kernel is for --lane')
  return values.lane === undefined ? command.run({ json: values.json ?? false }) : inLane(name as string, values.lane, values)
}

/** The same command in an emulated machine. */
async function inLane(name: string, lane: string, { json, kernel }: { json?: boolean; kernel?: string }): Promise<number> {
  const words = ['run', lane, ...(kernel === undefined ? [] : ['--kernel', kernel]), '--', 'node-kvm', name, ...(json ? ['--json'] : [])]
  return (await import('./lab.js')).lab(words)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof KvmError)) throw error
  console.error(`node-kvm: ${error.message}`)
  if (error.code === 'unavailable' || error.code === 'permission') console.error(`\nAn emulated machine has one, with EPT or NPT, on any x86-64 Linux: node-kvm ${process.argv[2]} --lane ept (here: npm start -- --lane ept)`)
  process.exitCode = 1
}
