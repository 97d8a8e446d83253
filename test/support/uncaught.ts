/** Collects the errors that nobody catches, until it is disposed; meanwhile vitest's own listeners are put aside. */
export class Uncaught implements Disposable {
  readonly messages: string[] = []
  readonly #others = process.listeners('uncaughtException')
  readonly #listener = (error: unknown) => {
    this.messages.push(error instanceof Error ? error.message : String(error))
  }

  constructor() {
    process.removeAllListeners('uncaughtException')
    process.on('uncaughtException', this.#listener)
  }
  [Symbol.dispose](): void {
    process.off('uncaughtException', this.#listener)
    for (const listener of this.#others) process.on('uncaughtException', listener)
  }
}
