/** The findings of a run so far, which all parallel searchers share. */
import { type Finding, gistOf, signatureOf } from './children.js'
import { Searcher } from './searcher.js'

export interface Options {
  seed: number
  /** The run ends after so many programs, or milliseconds. */
  sequences: number
  milliseconds: number
  /** How many programs run at a time, in separate processes. */
  jobs: number
  folder: string
  environment: Record<string, string>
  hangSeconds: number
  /** For how long a program may be run again and again to make it smaller. */
  shrinkMilliseconds: number
}

/** A fault, and the smallest program that showed it. */
export interface Found {
  finding: Finding
  program: string
  /** Whether the first program that showed the fault also shows it in a process of its own. */
  alone: boolean
  seed: number
}

type Counts = Record<Finding['kind'], number>

/** A wrong state at the end may have several causes. So up to this many programs that show it are made smaller, and those that differ are told. */
const looksAtWrong = 8

export class Search {
  readonly counts: Counts = { crash: 0, hang: 0, untyped: 0, wrong: 0, leak: 0 }
  calls = 0
  sequences = 0
  readonly options: Options
  /** How often findings were looked at closely, by their signatures. */
  readonly #known = new Map<string, number>()
  readonly #skeletons = new Set<string>()
  readonly #gists = new Set<string>()
  readonly #onFound: (found: Found) => void
  readonly #end: number
  readonly #searchers: Searcher[]
  #faults = 0
  #begun = 0
  #stopped = false

  constructor(options: Options, onFound: (found: Found) => void) {
    this.options = options
    this.#onFound = onFound
    this.#end = Date.now() + options.milliseconds
    this.#searchers = Array.from({ length: options.jobs }, () => new Searcher(this))
  }

  get stopped(): boolean {
    return this.#stopped
  }
  /** How many faults were told. */
  get faults(): number {
    return this.#faults
  }

  async run(): Promise<void> {
    await Promise.all(this.#searchers.map((searcher) => searcher.run()))
  }

  /** Ends the run soon: the processes are ended at once. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#searchers.map((searcher) => searcher.end()))
  }

  /** The seed of the next program, or undefined once the run is over. */
  next(): number | undefined {
    if (this.#stopped || this.#begun >= this.options.sequences || Date.now() >= this.#end) return undefined
    return (this.options.seed + this.#begun++) | 0
  }

  isKnown(finding: Finding): boolean {
    return this.#known.has(signatureOf(finding))
  }
  /** Whether a program with a similar finding was made smaller before. */
  isLikeAnother(finding: Finding): boolean {
    return this.#gists.has(gistOf(finding))
  }

  /** Whether the finding is worth a close look. From now on other programs that find the same only count it; `forget` takes that back. */
  claim(finding: Finding): boolean {
    const signature = signatureOf(finding)
    const looks = this.#known.get(signature) ?? 0
    if (looks >= (finding.kind === 'wrong' ? looksAtWrong : 1)) return false
    this.#known.set(signature, looks + 1)
    return true
  }
  forget(finding: Finding): void {
    const signature = signatureOf(finding)
    const looks = (this.#known.get(signature) ?? 0) - 1
    if (looks > 0) this.#known.set(signature, looks)
    else this.#known.delete(signature)
  }

  /** For how long the finding's program may be made smaller. */
  shrinkMillisecondsFor(finding: Finding): number {
    // Less time will do if the place of an untyped error already says what it is, or if there are programs for a similar crash in another call.
    const share = this.isLikeAnother(finding) && finding.kind !== 'wrong' ? 10 : finding.kind === 'untyped' ? 4 : 1
    this.#gists.add(gistOf(finding))
    return this.options.shrinkMilliseconds / share
  }

  /** Tells of a fault, unless an earlier program made the same calls and ended in the same way. */
  tell(found: Found): void {
    const skeleton = `${signatureOf(found.finding)} ${skeletonOf(found.program)}`
    if (this.#skeletons.has(skeleton)) return
    this.#skeletons.add(skeleton)
    this.#faults++
    this.#onFound(found)
  }
}

/** A program's objects and methods: two programs with the same skeleton show the same. */
const skeletonOf = (program: string): string => [...new Set(program.match(/\b(?:[a-z]+\d+\.\w+|tell|endAt)\b/g))].sort().join(' ')
