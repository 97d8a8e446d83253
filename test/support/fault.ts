import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { patience } from './patience.js'

/** How a program of test/faults ended, and its output. A program that hangs is killed, and `signal` says so. */
export interface Outcome {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a program of test/faults in a separate process: a program that once crashed or hung must not take the suite with it. */
export async function runFault(
  name: string,
  args: string[] = [],
  { node = [], timeout = patience }: { node?: string[]; timeout?: number } = {}
): Promise<Outcome> {
  const path = fileURLToPath(new URL(`../faults/${name}.mjs`, import.meta.url))
  const child = spawn(process.execPath, [...node, path, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const outcome: Outcome = { status: null, signal: null, stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) child[stream].setEncoding('utf8').on('data', (text) => (outcome[stream] += text))
  const limit = setTimeout(() => child.kill('SIGKILL'), timeout)
  ;[outcome.status, outcome.signal] = await once(child, 'close')
  clearTimeout(limit)
  return outcome
}
