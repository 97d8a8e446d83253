/** Generates programs, runs them, and makes each that shows something new as small as it gets. */
import fc from 'fast-check'
import { Child, type Finding, gistOf, hangIn, type Outcome, signatureOf } from './children.js'
import { type Has, programs } from './commands.js'
import { type Command, programOf } from './sequence.js'

export interface Options {
  seed: number
  /** Ends after so many programs, or milliseconds. */
  sequences: number
  milliseconds: number
  folder: string
  environment: Record<string, string>
  hangSeconds: number
  /** How long a program may be run again and again to make it smaller. */
  shrinkMilliseconds: number
}

/** A fault, and the smallest program that showed it. */
export interface Found {
  finding: Finding
  program: string
  /** Whether the first program that showed it shows it in a process of its own. */
  alone: boolean
  seed: number
}

type Counts = Record<Finding['kind'], number>
type Program = readonly (readonly Command[])[]

/** What is wrong in the end may have several causes: so many programs that show it are made smaller, and those that differ are told. */
const looksAtWrong = 8

/** Programs that one process runs before the next: what is left in it is judged, and then forgotten. */
const programsOfAChild = 60

export class Search {
  readonly counts: Counts = { crash: 0, hang: 0, untyped: 0, wrong: 0, leak: 0 }
  readonly found: Found[] = []
  calls = 0
  sequences = 0
  readonly #options: Options
  /** How often findings were looked at closely, by their signatures. */
  readonly #known = new Map<string, number>()
  readonly #skeletons = new Set<string>()
  readonly #gists = new Set<string>()
  readonly #onFound: (found: Found) => void
  readonly #end: number
  #child: Child | undefined
  /** The process in which programs are made smaller. */
  #second: Child | undefined
  #children = 0
  #stopped = false

  constructor(options: Options, onFound: (found: Found) => void) {
    this.#options = options
    this.#onFound = onFound
    this.#end = Date.now() + options.milliseconds
  }

  get #isOver(): boolean {
    return this.#stopped || this.sequences >= this.#options.sequences || Date.now() >= this.#end
  }

  /** Ends it soon: the child is gone at once. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#child?.end()
    await this.#second?.end()
  }

  async run(): Promise<void> {
    if (this.#stopped) return
    try {
      const { contents } = await this.#current()
      const arbitrary = programs(hasOf(contents))
      for (let round = 0; !this.#isOver; round++) await this.#look(arbitrary, (this.#options.seed + round) | 0)
    } finally {
      await this.#child?.end()
    }
  }

  /** One program, and if it shows something new, smaller ones of the same kind. */
  async #look(arbitrary: fc.Arbitrary<Program>, seed: number): Promise<void> {
    let found: Found | undefined
    let end = 0
    const property = fc.asyncProperty(arbitrary, async (commands) => {
      const program = programOf(commands.flat())
      if (found === undefined) {
        const first = await this.#first(program)
        if (!first) return
        found = { ...first, program, seed }
        // An untyped error says by its place what it is, and of a crash like others in another call there are programs: less will do.
        const gist = gistOf(first.finding)
        const most =
          this.#options.shrinkMilliseconds / (this.#gists.has(gist) && first.finding.kind !== 'wrong' ? 10 : first.finding.kind === 'untyped' ? 4 : 1)
        this.#gists.add(gist)
        end = first.alone ? Date.now() + most : 0
      } else {
        if (this.#stopped || Date.now() > end || !(await this.#again(program, found.finding))) return
        found.program = program
      }
      throw new Error(signatureOf(found.finding))
    })
    await fc.check(property, { seed, numRuns: 1 })
    await this.#second?.end()
    this.#second = undefined
    if (!found) return
    const skeleton = `${signatureOf(found.finding)} ${skeletonOf(found.program)}`
    if (this.#skeletons.has(skeleton)) return
    this.#skeletons.add(skeleton)
    this.found.push(found)
    this.#onFound(found)
  }

  /** Whether a smaller program shows the same. As long as the process lives, one serves all of them. */
  async #again(program: string, finding: Finding): Promise<boolean> {
    const signature = signatureOf(finding)
    if (finding.kind === 'leak') return this.#leaks(program)
    this.#second ??= await this.#start()
    const { findings, ended } = await this.#second.run(program)
    if (ended) this.#second = undefined
    return findings.some((other) => signatureOf(other) === signature)
  }

  async #current(): Promise<Child> {
    if (this.#child && this.#child.programs.length >= programsOfAChild) {
      await this.#child.end()
      this.#child = undefined
    }
    return (this.#child ??= await this.#start())
  }
  #start(): Promise<Child> {
    return Child.start(this.#options.folder, this.#children++, this.#options.environment, this.#options.hangSeconds)
  }

  /** Runs a program beside others; what it shows is counted, and if it is new, told. */
  async #first(text: string): Promise<{ finding: Finding; alone: boolean } | undefined> {
    const child = await this.#current()
    const outcome = await child.run(text, (call) => this.#known.has(signatureOf(hangIn(call, this.#options.hangSeconds))))
    if (outcome.ended) this.#child = undefined
    if (this.#stopped) return undefined
    this.sequences++
    this.calls += outcome.calls
    const found = [...outcome.findings]
    if (Object.keys(outcome.left).length > 0 && !this.#known.has(signatureOf(leakOf(outcome))) && (await this.#leaks(text)))
      found.push(leakOf(outcome))
    let fresh: { finding: Finding; alone: boolean } | undefined
    for (const finding of found) {
      const signature = signatureOf(finding)
      const looks = this.#known.get(signature) ?? 0
      const isNew = looks < (finding.kind === 'wrong' ? looksAtWrong : 1)
      // Of several like it the first is looked at closely.
      const times = this.#gists.has(gistOf(finding)) && finding.kind === 'crash' ? 1 : 3
      const alone = isNew && (finding.kind === 'leak' || (await this.#alone(text, signature, times)))
      if (finding.byClock && isNew && !alone) continue
      this.counts[finding.kind]++
      // Of several that are new one is told; another will be met again.
      if (!isNew || fresh) continue
      this.#known.set(signature, looks + 1)
      fresh = { finding, alone }
    }
    return fresh
  }

  /** Whether a program shows something in a process of its own: more than once, since threads take their turns as they come. */
  async #alone(text: string, signature: string, times: number): Promise<boolean> {
    for (let tries = 0; tries < times && !this.#stopped; tries++) {
      const { findings } = await this.#fresh((child) => child.run(text))
      if (findings.some((finding) => signatureOf(finding) === signature)) return true
    }
    return false
  }

  /** Whether more is left each time that it runs. */
  async #leaks(text: string): Promise<boolean> {
    const lefts = await this.#fresh(async (child) => {
      const all: Outcome[] = []
      for (let times = 0; times < 5 && !all.at(-1)?.ended; times++) all.push(await child.run(text))
      return all
    })
    return lefts.length === 5 && lefts.slice(2).every(({ left }) => Object.keys(left).length > 0)
  }

  async #fresh<T>(work: (child: Child) => Promise<T>): Promise<T> {
    const child = await this.#start()
    try {
      return await work(child)
    } finally {
      await child.end()
    }
  }
}

const leakOf = ({ left }: Outcome): Finding => ({ kind: 'leak', what: `left behind each time: ${Object.keys(left).sort().join(', ')}`, call: '' })

/** An older package is only asked for what it has. */
const hasOf =
  (contents: ReadonlySet<string>): Has =>
  (name) =>
    contents.has(name)

/** What a program does, by which objects and methods: two of one skeleton show the same. */
const skeletonOf = (program: string): string => [...new Set(program.match(/\b(?:[a-z]+\d+\.\w+|tell|endAt)\b/g))].sort().join(' ')
