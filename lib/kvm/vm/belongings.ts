/** The objects that a VM closes together with itself. */
import { KvmError } from '../../abi/errors.js'
import type { Handle } from '../../abi/ioctls.js'

/** @internal */
export interface Closable {
  close(): void
}

/** @internal The open objects that were made from a VM. Closing the VM ends them. */
export class Belongings {
  readonly #handle: Handle
  readonly #open = new Set<Closable>()
  closing = false

  constructor(handle: Handle) {
    this.#handle = handle
  }

  /** Refuses new objects while close() is in progress: it calls listeners and handlers, which may still look at the VM but add nothing to it. */
  checkOpen(): void {
    this.#handle.checkOpen()
    if (this.closing) throw new KvmError('closed', `${this.#handle.name} is being closed`)
  }

  /** @param make gets the function that the object calls when it is closed by itself */
  keep<T extends Closable>(make: (onClose: () => void) => T): T {
    this.checkOpen()
    const made = make(() => this.#open.delete(made))
    this.#open.add(made)
    return made
  }

  /** Returns one step for each object, so that a step that fails does not prevent the others. */
  closeEach(): (() => void)[] {
    return [...this.#open].map((one) => () => one.close())
  }
}
