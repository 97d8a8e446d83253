/** How native threads wake the event loop: a byte on a socket that Node watches (native/core/doorbell.h). */
import { Socket } from 'node:net'
import { limitError } from './errors.js'

/** Calls back, in the event loop, after each byte. Holds the process open unless unref() was called. */
export class Doorbell {
  readonly #socket: Socket

  /** @param listener the descriptor, taken over, or the negative errno that came instead */
  constructor(listener: number, onRing: () => void) {
    if (listener < 0) throw limitError('a socket to wake the event loop by', listener)
    this.#socket = new Socket({ fd: listener, readable: true, writable: false })
    this.#socket.on('data', onRing)
    // What is left to say when the other end goes is nothing.
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
