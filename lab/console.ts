/** Reads the output of the guest's two serial lines while the guest writes it. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { marks } from './guest.js'

/** A file that grows. */
class Tail {
  readonly #path: string
  #fd: number | undefined
  #position = 0

  constructor(path: string) {
    this.#path = path
  }

  read(): Buffer {
    if (this.#fd === undefined) {
      if (!existsSync(this.#path)) return Buffer.alloc(0)
      this.#fd = openSync(this.#path, 'r')
    }
    const parts: Buffer[] = []
    for (;;) {
      const part = Buffer.alloc(65536)
      const count = readSync(this.#fd, part, 0, part.length, this.#position)
      if (count === 0) return Buffer.concat(parts)
      this.#position += count
      parts.push(part.subarray(0, count))
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }
}

export type Stage = 'booting' | 'ready' | 'running' | 'ended' | 'dead'

export interface Sink {
  out(data: Uint8Array): void
  err(data: Uint8Array): void
}

const endMark = Buffer.from(`\n${marks.end}`)

/** How many bytes at the end of the data may be the beginning of the mark. */
function beginning(data: Buffer): number {
  for (let length = Math.min(endMark.length, data.length); length > 0; length--)
    if (data.subarray(data.length - length).equals(endMark.subarray(0, length))) return length
  return 0
}

/** The first line carries the console and, while the command runs, its standard error. The second line carries its standard output. */
export class GuestConsole {
  readonly #console: Tail
  readonly #output: Tail
  readonly #sink: Sink
  #pending = Buffer.alloc(0)
  stage: Stage = 'booting'

  constructor(consolePath: string, outputPath: string, sink: Sink) {
    this.#console = new Tail(consolePath)
    this.#output = new Tail(outputPath)
    this.#sink = sink
  }

  /** Passes on the new output. */
  poll(): Stage {
    this.#pending = Buffer.concat([this.#pending, this.#console.read()])
    if (this.stage === 'booting' || this.stage === 'ready') this.#boot()
    if (this.stage === 'running') this.#run()
    const output = this.#output.read()
    if (output.length > 0) this.#sink.out(output)
    return this.stage
  }

  #boot(): void {
    if (this.#pending.includes(marks.failed) || this.#pending.includes('Kernel panic')) this.stage = 'dead'
    else if (this.#pending.includes(marks.ready)) this.stage = 'ready'
    const start = this.#pending.indexOf(marks.start)
    const end = this.#pending.indexOf('\n', start)
    if (start < 0 || end < 0) return
    this.stage = 'running'
    this.#pending = this.#pending.subarray(end + 1)
  }

  #run(): void {
    const end = this.#pending.indexOf(endMark)
    if (this.#pending.includes('Kernel panic')) this.stage = 'dead'
    const until = end >= 0 ? end : this.#pending.length - beginning(this.#pending)
    if (until > 0) this.#sink.err(this.#pending.subarray(0, until))
    this.#pending = this.#pending.subarray(until)
    if (end >= 0) this.stage = 'ended'
  }

  close(): void {
    this.poll()
    if (this.stage === 'running' && this.#pending.length > 0) this.#sink.err(this.#pending)
    this.#console.close()
    this.#output.close()
  }
}
