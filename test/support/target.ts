import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach } from 'vitest'
import { json } from '../../lib/abi/text.js'
import { canRunVms, needsKvm } from './needs.js'

const script = fileURLToPath(new URL('target.mjs', import.meta.url))

/** The VM of another process, which does what it is told and tells the truth about itself. */
export class Target {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>

  private constructor(child: ChildProcess, answers: AsyncIterator<string>) {
    this.#child = child
    this.#answers = answers
    this.pid = child.pid as number
  }

  /**
   * `before` is a command that runs the target: `['unshare', '--pid', '--fork']`. `after` stands on the target's command line, and means nothing to
   * it.
   */
  static async start(before: string[] = [], after: string[] = []): Promise<Target> {
    const [command = '', ...args] = [...before, process.execPath, script, ...after]
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const target = new Target(child, createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]())
    await target.answer()
    return target
  }

  async answer(): Promise<any> {
    const { value, done } = await this.#answers.next()
    if (done) throw new Error('the target ended')
    return JSON.parse(value)
  }

  tell(what: string, rest: object = {}): void {
    // This is a line for readline, which ends a line at U+2028, too.
    this.#child.stdin?.write(`${json({ do: what, ...rest })}\n`)
  }

  async do(what: string, rest: object = {}): Promise<any> {
    this.tell(what, rest)
    return this.answer()
  }

  /** Ends the target, and waits until it is gone. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await gone
  }
}

/** The hooks of a file whose tests share one target. When a test begins, the target has neither memslots nor a guest. */
export function shareTarget(receive: (target: Target) => void): void {
  let target: Target | undefined
  beforeAll(async () => {
    if (!canRunVms) return
    target = await Target.start()
    receive(target)
  })
  beforeEach(async (context) => {
    needsKvm(context)
    await target?.do('reset')
  })
  afterAll(() => target?.end())
}
