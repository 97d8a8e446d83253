/** Runs programs of this machine that the lab needs. */
import { spawn } from 'node:child_process'
import { LabError } from './errors.js'
import { undoAtExit } from './leftovers.js'

interface Options {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** The package to install if the program is missing. */
  from?: string
  /** The program inherits this as descriptor 3. */
  descriptor?: number
  /** Ends the program. */
  signal?: AbortSignal
}

interface Ended {
  code: number | null
  signal: string | null
  out: Buffer
  err: Buffer
}

/** Programs for the system's administrator are not on every user's PATH. */
export const withSystemPrograms = (path = '') => [...path.split(':').filter(Boolean), '/usr/sbin', '/sbin'].join(':')

/** Runs a program to its end, and reports that end whatever it is. */
export async function execute(program: string, args: readonly string[], options: Options = {}): Promise<Ended> {
  const { cwd, env = process.env, from = program, descriptor, signal: abort } = options
  const child = spawn(program, args, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...env, PATH: withSystemPrograms(env['PATH']), LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe', ...(descriptor === undefined ? [] : [descriptor])]
  })
  const kill = () => child.kill('SIGKILL')
  const stop = undoAtExit(kill)
  abort?.addEventListener('abort', kill)
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout?.on('data', (data: Buffer) => out.push(data))
  child.stderr?.on('data', (data: Buffer) => err.push(data))
  try {
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (...ended) => resolve(ended))
    })
    abort?.throwIfAborted()
    return { code, signal, out: Buffer.concat(out), err: Buffer.concat(err) }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new LabError(`${program} is not on this machine; sudo apt-get install ${from} installs it`)
    throw error
  } finally {
    child.removeAllListeners()
    if (child.exitCode === null && child.signalCode === null) child.on('error', () => {})
    abort?.removeEventListener('abort', kill)
    stop()
  }
}

/** Runs a program that must succeed, and returns its output. */
export async function command(program: string, args: readonly string[], options: Options = {}): Promise<string> {
  const { code, signal, out, err } = await execute(program, args, options)
  if (code === 0) return out.toString()
  const said = Buffer.concat([err, out]).toString().trim().split('\n').slice(-12).join('\n')
  throw new LabError(`${program} ${args.slice(0, 4).join(' ')} ended with ${code ?? signal}:\n${said}`)
}
