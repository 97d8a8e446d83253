/** Runs the programs that the lab needs of this machine. */
import { spawn } from 'node:child_process'
import { LabError } from './errors.js'
import { undoAtExit } from './leftovers.js'

interface Options {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** The package that has the program, where it is missing. */
  from?: string
}

/** Programs for the system's administrator are not on everybody's PATH. */
const withSystemPrograms = (path = '') => [...path.split(':').filter(Boolean), '/usr/sbin', '/sbin'].join(':')

/** Runs a program to its end and returns what it printed. */
export async function command(program: string, args: string[], { cwd, env = process.env, from = program }: Options = {}): Promise<string> {
  const child = spawn(program, args, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...env, PATH: withSystemPrograms(env['PATH']), LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const stop = undoAtExit(() => child.kill('SIGKILL'))
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (data: Buffer) => out.push(data))
  child.stderr.on('data', (data: Buffer) => err.push(data))
  try {
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (...ended) => resolve(ended))
    })
    if (code !== 0)
      throw new LabError(
        `${program} ${args.slice(0, 4).join(' ')} ended with ${code ?? signal}:\n${Buffer.concat([...err, ...out])
          .toString()
          .trim()
          .split('\n')
          .slice(-12)
          .join('\n')}`
      )
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new LabError(`${program} is not on this machine; sudo apt-get install ${from} installs it`)
    throw error
  } finally {
    child.removeAllListeners()
    if (child.exitCode === null && child.signalCode === null) child.on('error', () => {})
    stop()
  }
  return Buffer.concat(out).toString()
}
