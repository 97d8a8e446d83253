#!/usr/bin/env node
/** The command line: finds the command, lets it parse, run and print, and explains errors. */
import { readFileSync } from 'node:fs'
import { exhaustion, KvmError } from '../abi/errors.js'
import { visible, visibleLines } from '../abi/text.js'
import { type Command, execute, type LaneRunner, UsageError } from './command.js'

interface Entry {
  says: string
  load(): Promise<Command>
}

// Commands are loaded on demand, so that one does not slow down another.
const commands: Record<string, Entry> = {
  walkthrough: {
    says: 'replay the KVM thread of October 2020 on a real guest, every step checked',
    load: async () => (await import('./walkthrough.js')).walkthrough
  },
  doctor: { says: 'what this host can do, and how to get what is missing', load: async () => (await import('./doctor.js')).doctor },
  map: { says: "every VM on this host; with --pid one VM's memslots and what they lead to", load: async () => (await import('./map.js')).map },
  trace: { says: 'a program, or a VMM that runs already: what KVM does for it, live', load: async () => (await import('./trace.js')).trace },
  lab: { says: 'an emulated Intel or AMD machine to run any of this in', load: async () => (await import('./lab.js')).lab }
}

function usage(): string {
  const list = Object.entries(commands).map(([name, { says }]) => `  ${name.padEnd(14)} ${says}`)
  return [
    'usage: node-kvm COMMAND [OPTIONS]',
    '',
    ...list,
    '',
    '  --help         this text, or after a command its own',
    "  --version      the package's version"
  ].join('\n')
}

const version = (): string => JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version

const runInLane: LaneRunner = async (lane, kernel, words) => {
  const { lab } = await import('./lab.js')
  return lab.run(kernel === undefined ? {} : { kernel }, ['run', lane], words)
}

async function main([name, ...rest]: string[]): Promise<number> {
  if (name === '--version' || name === '--help' || name === '-h' || name === 'help') {
    console.log(name === '--version' ? version() : usage())
    return 0
  }
  const entry = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!entry) {
    console.error(`node-kvm: ${name === undefined ? 'a command is needed' : `there is no command '${visible(name)}'`}\n\n${usage()}`)
    return 2
  }
  let command: Command | undefined
  try {
    command = await entry.load()
    return await execute(command, name as string, rest, runInLane)
  } catch (error) {
    return explain(error, name as string, command)
  }
}

/** Prints an error that people can act on, and returns the exit status. Unexpected errors are thrown again. */
function explain(error: unknown, name: string, command: Command | undefined): number {
  if (error instanceof UsageError) {
    console.error(`node-kvm ${name}: ${visibleLines(error.message)}\n\n${command?.usage}`)
    return 2
  }
  // Errors of the lab itself carry their status.
  const status = (error as { status?: unknown }).status
  if (typeof status === 'number') {
    console.error(`node-kvm ${name}: ${visibleLines((error as Error).message)}`)
    return status
  }
  // Node throws this error for a module that it could not open.
  const known = error instanceof KvmError ? error : exhaustion(`loading ${name}`, String((error as NodeJS.ErrnoException).code))
  if (!known) throw error
  console.error(`node-kvm: ${known.message}`)
  if (command?.inLanes && !('addon' in known) && (known.code === 'unavailable' || known.code === 'permission'))
    console.error(
      `\nAn emulated machine has one, with EPT or NPT, on any x86-64 Linux: node-kvm ${name} --lane ept${name === 'walkthrough' ? ' (here: npm start -- --lane ept)' : ''}`
    )
  return 1
}

process.exitCode = await main(process.argv.slice(2))
