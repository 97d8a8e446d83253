/** The process of an emulator, in a folder of its own. */
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
  /** The beginning of the command line that gave the emulator a network of its own; empty if it has none. */
  readonly network: readonly string[]
  #closed = false
  readonly #stop: () => void

  /** Starts the emulator in the folder, which holds the disk of the run. `state` is the folder of a saved state from which to go on. */
  constructor({ words, env, files: texts, monitor = false, network = [] }: Start, folder: string, images: Images, state?: string) {
    this.folder = folder
    this.network = network
    // Each run links to the images, because Bochs puts a lock beside each image.
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
    // The kernel ends the emulator when this process ends, even if this process is killed and cannot do it itself.
    const [program, ...rest] = [...network, 'setpriv', '--pdeathsig', 'KILL', ...words] as [string, ...string[]]
    this.child = spawn(program, rest, {
      cwd: folder,
      env,
      detached: true,
      // As long as nobody has opened its screen, Bochs sends its drawings to descriptor 0, and waits if that is a socket.
      stdio: [monitor ? 'pipe' : 'ignore', monitor ? 'pipe' : log, log]
    })
    closeSync(log)
    this.child.on('error', () => {})
    this.child.stdin?.on('error', () => {})
    this.child.on('close', () => {
      this.#closed = true
    })
    // The emulator has a process group of its own, so that all of it can be ended.
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

  /** Ends the emulator, and waits until it has ended. */
  async stop(): Promise<void> {
    this.#stop()
    while (this.child.pid !== undefined && !this.#ended) await sleep(10)
  }
}
