/** What a VM closes with itself. */
import { KvmError } from '../../abi/errors.js'
import type { Handle } from '../../abi/ioctls.js'

/** @internal */
export interface Closable {
  close(): void
}

/** @internal What was made of a VM and is open: closing the VM ends it. */
export class Belongings {
  readonly #handle: Handle
  readonly #open = new Set<Closable>()
  closing = false

  constructor(handle: Handle) {
    this.#handle = handle
  }

  /** For what close() ends: it calls listeners and handlers, who may still look at the VM, but add nothing to it. */
  checkOpen(): void {
    this.#handle.checkOpen()
    if (this.closing) throw new KvmError('closed', `${this.#handle.name} is being closed`)
  }

  /** @param make gets what the thing calls when it is closed by itself */
  keep<T extends Closable>(make: (onClose: () => void) => T): T {
    this.checkOpen()
    const made = make(() => this.#open.delete(made))
    this.#open.add(made)
    return made
  }

  /** One step for each, of which none keeps the others from being taken. */
  closeEach(): (() => void)[] {
    return [...this.#open].map((one) => () => one.close())
  }
}
