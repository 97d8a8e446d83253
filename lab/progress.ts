/** Shows on standard error what the lab is doing: by one changing line on a terminal, by a line for each step elsewhere. */
export class Progress {
  readonly #terminal = process.stderr.isTTY === true
  readonly #visible: (text: string) => string
  #text = ''
  #since = Date.now()
  #ticker: NodeJS.Timeout | undefined

  /** @param visible makes characters visible that would control a terminal; the text may come from the guest */
  constructor(visible: (text: string) => string) {
    this.#visible = visible
  }

  say(text: string): void {
    this.#text = this.#visible(text)
    this.#since = Date.now()
    if (!this.#terminal) process.stderr.write(`lab: ${this.#text}\n`)
    else {
      this.#draw()
      this.#ticker ??= setInterval(() => this.#draw(), 1000).unref()
    }
  }

  /** Prints a line that stays. */
  note(text: string): void {
    this.done()
    process.stderr.write(`lab: ${this.#visible(text)}\n`)
  }

  #draw(): void {
    const seconds = Math.round((Date.now() - this.#since) / 1000)
    process.stderr.write(`\r\x1b[Klab: ${this.#text}${seconds > 0 ? ` (${seconds} s)` : ''}`)
  }

  /** Called before anything else is printed. */
  done(): void {
    clearInterval(this.#ticker)
    this.#ticker = undefined
    if (this.#terminal && this.#text) process.stderr.write('\r\x1b[K')
    this.#text = ''
  }
}
