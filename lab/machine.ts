/** An emulator's process, in a folder of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { LabError } from './errors.js'
import { undoAtExit } from './leftovers.js'
import { findProgram } from './libraries.js'
import { files, type Images, type Start } from './run-folder.js'

export class Machine {
  readonly folder: string
  readonly child: ChildProcess
  /** How it was given a network of its own; empty where it was not. */
  readonly network: readonly string[]
  #closed = false
  readonly #stop: () => void

  /** Starts the emulator in the folder, which holds the disk of the run; `state` is the folder of a saved state to go on from. */
  constructor({ words, env, files: texts, monitor = false, network = [] }: Start, folder: string, images: Images, state?: string) {
    this.folder = folder
    this.network = network
    // By links of this run's own: Bochs puts a lock beside each image.
    symlinkSync(images.base, join(folder, files.base))
    symlinkSync(images.modules, join(folder, files.modules))
    mkdirSync(join(folder, files.state))
    if (state !== undefined) for (const name of readdirSync(state)) symlinkSync(join(state, name), join(folder, files.state, name))
    for (const [name, text] of Object.entries(texts)) {
      rmSync(join(folder, name), { force: true })
      writeFileSync(join(folder, name), text)
    }
    if (!findProgram('setpriv')) throw new LabError('setpriv is not on this machine; sudo apt-get install util-linux installs it')
    const log = openSync(join(folder, files.emulator), 'a')
    // The kernel ends it when this process ends, should this process be killed in a way that it cannot notice.
    const [program, ...rest] = [...network, 'setpriv', '--pdeathsig', 'KILL', ...words] as [string, ...string[]]
    this.child = spawn(program, rest, {
      cwd: folder,
      env,
      detached: true,
      // Where nobody has opened its screen, Bochs sends what it draws to file 0, and waits if that is a socket.
      stdio: [monitor ? 'pipe' : 'ignore', monitor ? 'pipe' : log, log]
    })
    closeSync(log)
    this.child.on('error', () => {})
    this.child.stdin?.on('error', () => {})
    this.child.on('close', () => {
      this.#closed = true
    })
    // Its own process group, so that it ends whole.
    this.#stop = undoAtExit(() => {
      if (this.child.pid !== undefined && !this.#ended) process.kill(-this.child.pid, 'SIGKILL')
    })
  }

  get #ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  get closed(): boolean {
    return this.#closed || this.child.pid === undefined
  }

  /** Ends it, and waits until it has ended. */
  async stop(): Promise<void> {
    this.#stop()
    while (this.child.pid !== undefined && !this.#ended) await sleep(10)
  }
}
