/** The processes in which programs run, and the watch over their ends. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, fstatSync, ftruncateSync, openSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Finding {
  kind: 'crash' | 'hang' | 'untyped' | 'wrong' | 'leak'
  what: string
  /** The text of the call. */
  call: string
  /** Set if a clock decided, which does not know how much of a processor the process got: such a finding is believed once it is seen again. */
  byClock?: boolean
}
export interface Outcome {
  calls: number
  findings: Finding[]
  /** Resources that are held at the end and were not before: a leak, if it grows each time. */
  left: Record<string, number>
  /** Whether the child is gone. */
  ended: boolean
}
interface Answer {
  calls: number
  left: Record<string, number>
}

/** A finding's description, without numbers. */
export function gistOf({ kind, what }: Finding): string {
  const gist = what.replace(/0x[0-9a-f]+|\d+n?/g, 'N').replace(/\s+/g, ' ')
  return `${kind}: ${gist.slice(0, 160)}`
}

/** The signature by which a finding is recognized when a smaller program shows it again: its description without numbers, and the method. */
export function signatureOf(finding: Finding): string {
  const [method = ''] = /\.[\w.]+/.exec(finding.call) ?? []
  // The place of an untyped error says more than the call that led there.
  return finding.kind === 'untyped' ? gistOf(finding) : `${gistOf(finding)} ${method}`
}

/** A process that ends within withoutThreads() leaves its cgroup behind. */
function removeGroup(pid: number | undefined): void {
  try {
    rmdirSync(`/sys/fs/cgroup/pids/node-kvm-fuzz-${pid}`)
  } catch {
    // Mostly there is none.
  }
}

/** The finding that no call came after this one. */
export const hangIn = (call: string, seconds: number): Finding => ({ kind: 'hang', what: `no call returned for ${seconds} s`, call })

/** The limits that are in force after these reports. */
function limitsIn(reports: readonly { kind: string; what: string }[]): Set<string> {
  const counts = new Map<string, number>()
  for (const { kind, what } of reports)
    if (kind === 'lacking' || kind === 'enough') counts.set(what, (counts.get(what) ?? 0) + (kind === 'lacking' ? 1 : -1))
  return new Set([...counts].filter(([, count]) => count > 0).map(([what]) => what))
}

/** How many seconds of a processor a process has used, and whether one of its threads runs or waits for a processor. */
function timeOf(pid: number): { used: number; runnable: boolean } {
  const sum = { used: 0, runnable: false }
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const fields = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
      sum.used += (Number(fields[11]) + Number(fields[12])) / 100
      sum.runnable ||= fields[0] === 'R'
    }
  } catch {
    // The process ended, or one of its threads did.
  }
  return sum
}

export class Child {
  readonly #process: ChildProcess
  readonly #logPath: string
  readonly #log: number
  readonly #lines: AsyncIterator<string>
  readonly #ended: Promise<string>
  readonly #hangSeconds: number
  #closed: Promise<void> | undefined
  #errors = ''
  /** The names of the package's classes, methods and functions. */
  contents: ReadonlySet<string> = new Set()
  programs: string[] = []

  static #started = 0

  private constructor(folder: string, environment: Record<string, string>, hangSeconds: number) {
    this.#logPath = join(folder, `log-${Child.#started++}`)
    this.#log = openSync(this.#logPath, 'a')
    this.#hangSeconds = hangSeconds
    const file = fileURLToPath(new URL('./child.js', import.meta.url))
    this.#process = spawn(process.execPath, ['--expose-gc', '--stack-trace-limit=4', file], {
      stdio: ['pipe', 'pipe', 'pipe', this.#log],
      env: { ...process.env, ...environment, NODE_KVM_FUZZ_LOG: '3' },
      cwd: folder
    })
    const { stdin, stdout, stderr } = this.#process
    stdin?.on('error', () => {})
    stderr?.setEncoding('utf8').on('data', (text) => (this.#errors = (this.#errors + text).slice(-20_000)))
    this.#lines = createInterface({ input: stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]()
    this.#ended = new Promise((resolve) =>
      this.#process.once('close', (status, signal) => {
        removeGroup(this.#process.pid)
        resolve(signal ?? `status ${status}`)
      })
    )
  }

  static async start(folder: string, environment: Record<string, string>, hangSeconds: number): Promise<Child> {
    const child = new Child(folder, environment, hangSeconds)
    const { value } = await child.#lines.next()
    if (value === undefined) throw new Error(`the child does not start: ${await child.#ended}\n${child.#errors}`)
    child.contents = new Set((JSON.parse(value) as { contents: string[] }).contents)
    return child
  }

  /** Reads the child's log: the reports, and the text of the last call. */
  #takeLog(): { lines: string[]; last: string } {
    const lines = readFileSync(this.#logPath, 'utf8').split('\n').filter(Boolean)
    return { lines: lines.filter((line) => line.startsWith('{')), last: lines.findLast((line) => line.startsWith('.'))?.slice(1) ?? '' }
  }

  /** Resolves with `hang` when the child has made no call for too long. Time in which it waited for a processor is not counted. */
  async #watch(signal: AbortSignal, isKnown: (call: string) => boolean): Promise<'hang' | 'stopped'> {
    const tick = 0.25
    const pid = this.#process.pid as number
    let size = -1
    let idle = 0
    let used = timeOf(pid).used
    while (!signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, tick * 1000))
      const now = timeOf(pid)
      const { size: grown } = fstatSync(this.#log)
      if (grown !== size) idle = 0
      else idle += now.runnable ? Math.min(tick, now.used - used) : tick
      size = grown
      used = now.used
      if (idle >= this.#hangSeconds || (idle >= this.#hangSeconds / 5 && isKnown(this.#takeLog().last))) return 'hang'
    }
    return 'stopped'
  }

  /** @param isKnown whether a call is known to hang: the wait for such a call is shorter */
  async run(program: string, isKnown: (call: string) => boolean = () => false): Promise<Outcome> {
    this.programs.push(program)
    ftruncateSync(this.#log)
    this.#process.stdin?.write(`${JSON.stringify({ program })}\n`)
    const watching = new AbortController()
    const line = this.#lines.next()
    const ending = await Promise.race([
      line.then(({ value }) => (value === undefined ? this.#ended : undefined)),
      this.#watch(watching.signal, isKnown)
    ])
    watching.abort()
    const { lines, last } = this.#takeLog()
    const reports = lines.map((text) => JSON.parse(text) as { kind: Finding['kind'] | 'leaving' | 'lacking' | 'enough'; what: string; call: string })
    const told = reports.filter(({ kind }) => !['leaving', 'lacking', 'enough'].includes(kind)) as Finding[]
    const findings = told.map((finding): Finding => (finding.kind === 'hang' ? { ...finding, byClock: true } : finding))
    const lacking = limitsIn(reports)
    if (ending === undefined) {
      const { calls, left } = JSON.parse((await line).value as string) as Answer
      // A child that lacks something for good runs no further program.
      if (lacking.size > 0) await this.end()
      return { calls, findings, left, ended: lacking.size > 0 }
    }
    const leaves = reports.some(({ kind }) => kind === 'leaving')
    if (ending === 'hang')
      findings.push({ ...hangIn(last, this.#hangSeconds), ...(leaves && { what: `the process did not end in ${this.#hangSeconds} s` }) })
    else if ((!leaves || ending !== 'status 0') && !(lacking.has('as') && this.#isOutOfMemory()))
      findings.push({ kind: 'crash', what: `${ending} ${this.#tellingErrors()}`, call: last })
    await this.end()
    return { calls: 1, findings, left: {}, ended: true }
  }

  /** V8 ends a process whose address space is limited, on any of its threads, if it gets none for itself. */
  #isOutOfMemory(): boolean {
    return /out of memory|\bOOM\b/i.test(this.#errors)
  }

  /** The lines of the child's standard error that say why it ended. */
  #tellingErrors(): string {
    const lines = this.#errors.split('\n').filter((line) => /terminate called|what\(\)|FATAL|ERROR:|SUMMARY:|#\d+ .*node_kvm|assert/i.test(line))
    return lines.slice(0, 12).join('\n')
  }

  /** Ends the child, once. */
  end(): Promise<void> {
    this.#process.kill('SIGKILL')
    return (this.#closed ??= this.#ended.then(() => closeSync(this.#log)))
  }
}
