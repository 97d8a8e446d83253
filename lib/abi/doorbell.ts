/** Native threads wake the event loop by writing a byte to a socket that Node watches (native/core/doorbell.h). */
import { Socket } from 'node:net'
import { limitError } from './errors.js'

/** Calls back in the event loop after each byte. It keeps the process alive unless unref() was called. */
export class Doorbell {
  readonly #socket: Socket

  /** @param listener the descriptor, which this object takes over, or a negative errno if making it failed */
  constructor(listener: number, onRing: () => void) {
    if (listener < 0) throw limitError('making a socket that wakes the event loop', listener)
    this.#socket = new Socket({ fd: listener, readable: true, writable: false })
    this.#socket.on('data', onRing)
    // When the other end closes, nothing is left to do.
    this.#socket.on('error', () => {})
  }

  ref(): void {
    this.#socket.ref()
  }
  unref(): void {
    this.#socket.unref()
  }
  close(): void {
    this.#socket.destroy()
  }
}
