import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { unpackedProgram } from '../../lab/packages.js'
import { bootSector } from './boot-sector.js'

/** Debian's QEMU, which the lab unpacked, with -accel kvm: a machine whose firmware runs and boots a program that touches memory. */
export class Qemu {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #folder: string
  readonly #socket: Socket
  readonly #answers: AsyncIterator<string>

  private constructor(child: ChildProcess, folder: string, socket: Socket) {
    this.pid = child.pid as number
    this.#child = child
    this.#folder = folder
    this.#socket = socket
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]()
  }

  static async start(unpacked: string, memory: string): Promise<Qemu> {
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-qemu-'))
    const control = join(folder, 'qmp')
    const disk = join(folder, 'disk')
    writeFileSync(disk, bootSector())
    const [program = '', ...words] = [
      ...unpackedProgram(unpacked, 'usr/bin/qemu-system-x86_64'),
      ...['usr/share/qemu', 'usr/share/seabios'].flatMap((place) => ['-L', join(unpacked, 'root', place)]),
      ...`-M pc -accel kvm -cpu qemu64 -m ${memory} -nodefaults -no-user-config -display none -net none`.split(' '),
      ...'-device VGA -chardev stdio,id=firmware -device isa-debugcon,iobase=0x402,chardev=firmware'.split(' '),
      '-drive',
      `file=${disk},format=raw,if=ide`,
      '-qmp',
      `unix:${control},server=on,wait=off`
    ]
    const env = { ...process.env, QEMU_MODULE_DIR: join(unpacked, 'root/usr/lib/x86_64-linux-gnu/qemu') }
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], env })
    try {
      await booted(child)
      const socket = connect(control)
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
      const qemu = new Qemu(child, folder, socket)
      await qemu.#execute('qmp_capabilities')
      return qemu
    } catch (error) {
      child.kill('SIGKILL')
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  async #execute(command: string, rest: object = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: rest })}\n`)
    for (;;) {
      const { value, done } = await this.#answers.next()
      if (done) throw new Error('QEMU ended')
      const answer = JSON.parse(value)
      if (answer.error) throw new Error(answer.error.desc)
      if ('return' in answer) return answer.return
    }
  }

  /** Returns the answer of the human monitor. */
  async monitor(line: string): Promise<string> {
    return (await this.#execute('human-monitor-command', { 'command-line': line })) as string
  }

  async end(): Promise<void> {
    this.#socket.destroy()
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await gone
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Waits until the firmware, and at last the program, wrote to the debug port. */
async function booted(child: ChildProcess): Promise<void> {
  let said = ''
  let complaint = ''
  child.stdout?.on('data', (text) => {
    said += text
  })
  child.stderr?.on('data', (text) => {
    complaint += text
  })
  for (let waited = 0; waited < 60_000; waited += 50) {
    if (said.includes('+')) return
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`QEMU ended: ${complaint}`)
    await sleep(50)
  }
  throw new Error(`the firmware did not boot the program within a minute: ${said.slice(-300)} ${complaint}`)
}
