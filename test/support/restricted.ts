/** Compares the doctor's findings with what really works, in children that lack some right or resource. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Diagnosis, Finding } from 'node-kvm/observe'
import { expect, type TestContext } from 'vitest'
import { commandLine } from './built.js'
import { skip } from './skip.js'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const trials = here('trials.mjs')
export const doctorWords = [process.execPath, commandLine, 'doctor', '--json']

/** A user without any rights. */
export const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
/** The same user, with one capability for each name. */
export const nobodyWith = (...names: string[]) => {
  const set = names.map((name) => `+${name}`).join()
  return [...nobody, '--inh-caps', set, '--ambient-caps', set]
}

export function needsRestricting(context: TestContext): void {
  if (process.getuid?.() !== 0) skip(context, 'needs root, to become somebody else')
  if (process.env['ASAN_OPTIONS'])
    skip(context, 'AddressSanitizer itself needs what these tests take away: /proc, address space, LD_PRELOAD in programs that gain privileges')
  const [program = '', ...words] = nobody
  const { status } = spawnSync(program, [...words, process.execPath, '-e', `fs.accessSync(${JSON.stringify(commandLine)})`])
  if (status !== 0) skip(context, 'another user may not read this folder, or that of the Node binary; or there is no setpriv')
  if (spawnSync('unshare', ['-m', 'true']).status !== 0) skip(context, 'no mount namespace can be made here (unshare -m)')
}

export function needsDevice(context: TestContext): void {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch {
    skip(context, 'there is no /dev/kvm here that root may open')
  }
}

/** A mount namespace in which files may be hidden and replaced; all changes to its mounts end with it. */
export class MountNamespace implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'node-kvm-doctor-'))
  readonly #holder: ChildProcess

  private constructor(holder: ChildProcess) {
    this.#holder = holder
  }

  /** @param preparation root's shell runs this in the folder, which has a file system of its own there */
  static async with(preparation = ':'): Promise<MountNamespace> {
    const holder = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', 'echo; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
    const made = new MountNamespace(holder)
    // The line comes once the namespace is there. The end of its input ends the holder, even when this process dies.
    await new Promise((resolve) => holder.stdout?.once('data', resolve))
    try {
      made.shell(`mount -t tmpfs -o mode=755,dev tmpfs ${made.folder} && cd ${made.folder}`)
      made.shell(
        `cd ${made.folder} && printf '#!/bin/sh\\nexec %s\\n' '${doctorWords.join(' ')}' > doctor-shell && chmod 755 doctor-shell && ${preparation}`
      )
    } catch (error) {
      made[Symbol.dispose]()
      throw error
    }
    return made
  }

  /** Runs words in the namespace, with no more than the environment given. */
  run(words: string[], env: NodeJS.ProcessEnv = {}) {
    return spawnSync('nsenter', ['--target', String(this.#holder.pid), '--mount', `--wd=${process.cwd()}`, '--', ...words], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
      timeout: 60_000
    })
  }

  /** Runs a command by root's shell in the namespace; it must succeed. */
  shell(command: string): string {
    const { stdout, stderr, status } = this.run(['sh', '-c', command])
    expect({ command, stderr, status }).toEqual({ command, stderr: expect.anything(), status: 0 })
    return stdout
  }

  doctor(who: string[] = nobody, env: NodeJS.ProcessEnv = {}): Diagnosis {
    const { stdout, stderr, error } = this.run([...who, ...doctorWords], { ...this.#environment, ...env })
    expect({ stderr, error }).toEqual({ stderr: '', error: undefined })
    return JSON.parse(stdout)
  }

  /** Expects that the doctor's findings about the restricted child agree with what really works there. */
  truthful(who: string[] = nobody): Diagnosis {
    const diagnosis = this.doctor(who)
    const { stdout, stderr } = this.run([...who, process.execPath, trials])
    const truth: Record<string, boolean> = JSON.parse(stdout || `"${stderr}"`)
    const said = Object.fromEntries(Object.keys(truth).map((name) => [name, finding(diagnosis, name).ok]))
    expect(said).toEqual(truth)
    expect(diagnosis.ok).toBe(truth['guests'])
    return diagnosis
  }

  /** Runs a remedy that opens a shell. The doctor takes the shell's place, and inherits what the remedy gave. */
  doctorInShellOf(command: string, who: string[] = []): Diagnosis {
    const { stdout, stderr } = this.run([...who, 'sh', '-c', command], this.#environment)
    expect({ command, stderr }).toEqual({ command, stderr: '' })
    return JSON.parse(stdout)
  }

  /** Remedies start SHELL as the shell; here it is the doctor. */
  get #environment() {
    return { SHELL: `${this.folder}/doctor-shell` }
  }

  [Symbol.dispose](): void {
    this.#holder.stdin?.end()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export function finding({ findings }: Diagnosis, name: string): Finding {
  const [first, ...more] = findings.filter((one) => one.name === name)
  expect({ name, more }).toEqual({ name, more: [] })
  return first ?? expect.fail(`the doctor says nothing of ${name}`)
}

/** The command that the doctor prints for a finding that is not ok. */
export function remedyOf(diagnosis: Diagnosis, name: string): string {
  const { ok, remedy, detail } = finding(diagnosis, name)
  expect({ name, ok, detail }).toEqual({ name, ok: false, detail })
  return remedy ?? expect.fail(`no remedy for ${name}: ${detail}`)
}

/** The numbers of system calls that a filter refuses (x86-64). */
export const systemCalls = { bpf: 321, memfd_create: 319, perf_event_open: 298, userfaultfd: 323 } as const
