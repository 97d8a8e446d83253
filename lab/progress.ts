/** What the lab is at, on standard error: one changing line on a terminal, a line each elsewhere. */
export class Progress {
  readonly #terminal = process.stderr.isTTY === true
  readonly #visible: (text: string) => string
  #text = ''
  #since = Date.now()
  #ticker: NodeJS.Timeout | undefined

  /** @param visible makes characters seen that would act on a terminal: part of what is told the guest has said */
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

  /** A line that stays. */
  note(text: string): void {
    this.done()
    process.stderr.write(`lab: ${this.#visible(text)}\n`)
  }

  #draw(): void {
    const seconds = Math.round((Date.now() - this.#since) / 1000)
    process.stderr.write(`\r\x1b[Klab: ${this.#text}${seconds > 0 ? ` (${seconds} s)` : ''}`)
  }

  /** Before anything else is printed. */
  done(): void {
    clearInterval(this.#ticker)
    this.#ticker = undefined
    if (this.#terminal && this.#text) process.stderr.write('\r\x1b[K')
    this.#text = ''
  }
}
