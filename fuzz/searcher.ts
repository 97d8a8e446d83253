/** Generates programs, runs them one after the other, and makes each program that shows something new as small as possible. */
import fc from 'fast-check'
import { Child, type Finding, hangIn, type Outcome, signatureOf } from './children.js'
import { type Has, programs } from './commands.js'
import type { Found, Search } from './search.js'
import { type Command, programOf } from './sequence.js'

type Program = readonly (readonly Command[])[]

/** How many programs one process runs before it is replaced: what is left in it is judged, and then forgotten. */
const programsOfAChild = 60

export class Searcher {
  readonly #search: Search
  readonly #all = new Set<Child>()
  /** The process in which programs run. */
  #child: Child | undefined
  /** The process in which programs are made smaller. */
  #second: Child | undefined

  constructor(search: Search) {
    this.#search = search
  }

  async run(): Promise<void> {
    if (this.#search.stopped) return
    try {
      const { contents } = await this.#current()
      const arbitrary = programs(hasOf(contents))
      for (let seed = this.#search.next(); seed !== undefined; seed = this.#search.next()) await this.#look(arbitrary, seed)
    } finally {
      await this.end()
    }
  }

  /** Ends every process of this searcher. */
  async end(): Promise<void> {
    await Promise.all([...this.#all].map((child) => child.end()))
  }

  /** Runs one program and, if it shows something new, smaller programs of the same kind. */
  async #look(arbitrary: fc.Arbitrary<Program>, seed: number): Promise<void> {
    let found: Found | undefined
    let end = 0
    const property = fc.asyncProperty(arbitrary, async (commands) => {
      const program = programOf(commands.flat())
      if (found === undefined) {
        const first = await this.#first(program)
        if (!first) return
        found = { ...first, program, seed }
        const most = this.#search.shrinkMillisecondsFor(first.finding)
        end = first.alone ? Date.now() + most : 0
      } else {
        if (this.#search.stopped || Date.now() > end || !(await this.#again(program, found.finding))) return
        found.program = program
      }
      throw new Error(signatureOf(found.finding))
    })
    await fc.check(property, { seed, numRuns: 1 })
    this.#second = await this.#dismiss(this.#second)
    if (found) this.#search.tell(found)
  }

  /** Whether a smaller program shows the same finding. One process serves all of them as long as it lives. */
  async #again(program: string, finding: Finding): Promise<boolean> {
    if (finding.kind === 'leak') return this.#leaks(program)
    this.#second ??= await this.#start()
    const { findings, ended } = await this.#second.run(program)
    if (ended) this.#second = await this.#dismiss(this.#second)
    return findings.some((other) => signatureOf(other) === signatureOf(finding))
  }

  async #current(): Promise<Child> {
    if (this.#child && this.#child.programs.length >= programsOfAChild) this.#child = await this.#dismiss(this.#child)
    return (this.#child ??= await this.#start())
  }
  async #start(): Promise<Child> {
    const { folder, environment, hangSeconds } = this.#search.options
    const child = await Child.start(folder, environment, hangSeconds)
    this.#all.add(child)
    if (this.#search.stopped) await child.end()
    return child
  }
  async #dismiss(child: Child | undefined): Promise<undefined> {
    await child?.end()
    if (child) this.#all.delete(child)
  }

  /** Runs a program in a process that ran others before; counts its findings, and returns a new one. */
  async #first(text: string): Promise<{ finding: Finding; alone: boolean } | undefined> {
    const search = this.#search
    const child = await this.#current()
    const outcome = await child.run(text, (call) => search.isKnown(hangIn(call, search.options.hangSeconds)))
    if (outcome.ended) this.#child = await this.#dismiss(child)
    if (search.stopped) return undefined
    search.sequences++
    search.calls += outcome.calls
    const found = [...outcome.findings]
    if (Object.keys(outcome.left).length > 0 && !search.isKnown(leakOf(outcome)) && (await this.#leaks(text))) found.push(leakOf(outcome))
    let fresh: { finding: Finding; alone: boolean } | undefined
    for (const finding of found) {
      const isNew = search.claim(finding)
      // Of several similar findings, only the first is looked at closely.
      const times = search.isLikeAnother(finding) && finding.kind === 'crash' ? 1 : 3
      const alone = isNew && (finding.kind === 'leak' || (await this.#alone(text, finding, times)))
      const isBelieved = !finding.byClock || !isNew || alone
      if (isBelieved) search.counts[finding.kind]++
      // Of several new findings, one is told; the others will be met again.
      if (isNew && (!isBelieved || fresh)) search.forget(finding)
      else if (isNew) fresh = { finding, alone }
    }
    return fresh
  }

  /** Whether a program shows a finding in a process of its own. It runs more than once, since the order of threads varies. */
  async #alone(text: string, finding: Finding, times: number): Promise<boolean> {
    for (let tries = 0; tries < times && !this.#search.stopped; tries++) {
      const { findings } = await this.#fresh((child) => child.run(text))
      if (findings.some((other) => signatureOf(other) === signatureOf(finding))) return true
    }
    return false
  }

  /** Whether more is left each time the program runs. */
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
      await this.#dismiss(child)
    }
  }
}

const leakOf = ({ left }: Outcome): Finding => ({ kind: 'leak', what: `left behind each time: ${Object.keys(left).sort().join(', ')}`, call: '' })

/** Programs ask an older package only for the calls that it has. */
const hasOf =
  (contents: ReadonlySet<string>): Has =>
  (name) =>
    contents.has(name)
