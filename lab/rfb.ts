/** A minimal VNC client that can press a button and type (RFC 6143). */
import type { Duplex } from 'node:stream'

const returnKey = 0xff0d

export class RfbScreen {
  readonly #socket: Duplex
  readonly width: number

  private constructor(socket: Duplex, width: number) {
    this.#socket = socket
    this.width = width
    // Nobody looks at the screen's content.
    socket.resume()
  }

  /** @param socket the connection to the server */
  static async open(socket: Duplex): Promise<RfbScreen> {
    const received: Buffer[] = []
    socket.on('data', (data: Buffer) => received.push(data))
    const failure = new Promise<never>((_, reject) => {
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('the connection was closed')))
    })
    failure.catch(() => {})
    const until = async (length: number) => {
      while (Buffer.concat(received).length < length) await Promise.race([new Promise((resolve) => socket.once('data', resolve)), failure])
      return Buffer.concat(received)
    }
    // The exchange is ProtocolVersion, security type "none", ClientInit (shared). ServerInit begins with the width.
    await until(12)
    socket.write('RFB 003.003\n')
    await until(16)
    socket.write(Buffer.from([1]))
    return new RfbScreen(socket, (await until(18)).readUInt16BE(16))
  }

  /** Presses the first mouse button and releases it. */
  click(x: number, y: number): void {
    for (const buttons of [1, 0]) {
      const message = Buffer.from([5, buttons, 0, 0, 0, 0])
      message.writeUInt16BE(x, 2)
      message.writeUInt16BE(y, 4)
      this.#socket.write(message)
    }
  }

  /** Types a line. */
  type(text: string): void {
    for (const key of [...Buffer.from(text, 'latin1'), returnKey])
      for (const down of [1, 0]) {
        const message = Buffer.from([4, down, 0, 0, 0, 0, 0, 0])
        message.writeUInt32BE(key, 4)
        this.#socket.write(message)
      }
  }

  close(): void {
    this.#socket.destroy()
  }
}
