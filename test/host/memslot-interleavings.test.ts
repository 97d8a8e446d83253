// Tests the protocol of native/core/memslots.h in every order of the steps of two environments that make two changes each. It runs the library's own
// Memslots; only the add-on's table is a model (support/memslot-table.ts). The model's steps are the points at which the other environment may go on.
// To put an environment back to an earlier point, the test runs it again from its beginning, with the answers that it got.
import { constants } from 'node:os'
import { KvmError, type Memslot } from 'node-kvm'
import { expect, test } from 'vitest'
import { Handle } from '../../lib/abi/ioctls.js'
import { type NativeRegion, type NativeVm, native } from '../../lib/abi/native.js'
import { mappingOver } from '../../lib/memory/mapping.js'
import { recordOf } from '../../lib/memory/memslot.js'
import { recordLength } from '../../lib/memory/memslot-words.js'
import { type Memslots, makeMemslots } from '../../lib/memory/memslots.js'
import { Table, type TableRow } from '../support/memslot-table.js'
import { needsKvm } from '../support/needs.js'

const [p, q, r] = [0x1000, 0x2000, 0x3000]
const size = 0x1000
const region = (address: number) => ({ address, size, kind: 'anonymous', slots: 1, release: () => {} }) as unknown as NativeRegion
const regions = [0x10_0000, 0x20_0000, 0x30_0000].map(region) as [NativeRegion, NativeRegion, NativeRegion]

/** Two slots, named by the numbers of their creation: 1 at p and 2 at q. */
const start = new Table(100)
for (const [gpa, place] of [
  [p, 0],
  [q, 1]
] as const)
  start.change(new Float64Array([-1, 0, gpa, size, 0, 0, -1, 0]), [regions[place]], true)

interface Environment {
  memslots: Memslots
  one: Memslot
  two: Memslot
  mine: Memslot | undefined
}
type Rows = readonly TableRow[]

/** A change, its result on the newest table, and the slots that it concerns. */
interface Operation {
  make(environment: Environment): void
  result(rows: Rows, environment: Environment): Rows
  slots(environment: Environment): (Memslot | undefined)[]
}
const withSlot = (rows: Rows, slot: Memslot | undefined, change: Partial<TableRow>): Rows =>
  rows.map((row) => (row.created === (slot && recordOf(slot).created) ? { ...row, ...change } : row))
const without = (rows: Rows, slot: Memslot | undefined): Rows => rows.filter(({ created }) => created !== (slot && recordOf(slot).created))
const withNew = (rows: Rows, gpa: number): Rows => [
  ...rows,
  { id: -1, created: Infinity, changed: 0, gpa, size, offset: 0, flags: 0, region: regions[2] }
]
const gpaOf = (rows: Rows, slot: Memslot): number => rows.find(({ created }) => created === recordOf(slot).created)?.gpa ?? Number.NaN
const fresh = (gpa: number) => ({ gpa, mapping: mappingOver(regions[2]) })

const operations = {
  create: {
    make: (environment) => {
      environment.mine = environment.memslots.create(fresh(r))
    },
    result: (rows) => withNew(rows, r),
    slots: () => []
  },
  'delete mine': {
    make: ({ mine }) => mine?.delete(),
    result: (rows, { mine }) => without(rows, mine),
    slots: ({ mine }) => [mine]
  },
  move: {
    make: ({ one }) => one.move(r),
    result: (rows, { one }) => withSlot(rows, one, { gpa: r }),
    slots: ({ one }) => [one]
  },
  'move there': {
    make: ({ one }) => one.move(q),
    result: (rows, { one }) => withSlot(rows, one, { gpa: q }),
    slots: ({ one }) => [one]
  },
  flags: {
    make: ({ two }) => two.setFlags({ logDirty: true }),
    result: (rows, { two }) => withSlot(rows, two, { flags: 1 }),
    slots: ({ two }) => [two]
  },
  rebind: {
    make: ({ one }) => one.rebind(mappingOver(regions[2])),
    result: (rows, { one }) => withSlot(rows, one, { region: regions[2] }),
    slots: ({ one }) => [one]
  },
  delete: {
    make: ({ one }) => one.delete(),
    result: (rows, { one }) => without(rows, one),
    slots: ({ one }) => [one]
  },
  swap: {
    make: ({ memslots, one, two }) =>
      memslots.transaction((tx) => {
        const { gpa } = one
        tx.move(one, two.gpa)
        tx.move(two, gpa)
      }),
    result: (rows, { one, two }) => withSlot(withSlot(rows, one, { gpa: gpaOf(rows, two) }), two, { gpa: gpaOf(rows, one) }),
    slots: ({ one, two }) => [one, two]
  },
  replace: {
    make: ({ memslots, one }) =>
      memslots.transaction((tx) => {
        tx.delete(one)
        tx.create(fresh(p))
      }),
    result: (rows, { one }) => withNew(without(rows, one), p),
    slots: ({ one }) => [one]
  }
} satisfies Record<string, Operation>
type Name = keyof typeof operations

/** A step's answer, and its time: the number of the last change. */
interface Answer {
  value: unknown
  records?: Float64Array
  at: number
}
/** A change that a table was given. */
interface Made {
  by: number
  operation: number
  /** The number of the last change before it. */
  at: number
  before: Rows
  after: Rows
}
/** The table with its past. */
interface World {
  table: Table
  made: readonly Made[]
  /** The rows after each change. */
  past: ReadonlyMap<number, Rows>
}
class Suspended extends Error {}

/** The add-on for one environment: it gives the old answers, then so many new ones. */
class Replay {
  readonly fd = 1
  readonly memslotWords = new ArrayBuffer((recordLength + 1) * 8)
  operation = -1
  readonly log: Answer[]
  readonly #by: number
  readonly #world: World
  #fresh: number
  #at = 0
  constructor(by: number, log: readonly Answer[], world: World, fresh: number) {
    this.#by = by
    this.log = [...log]
    this.#world = world
    this.#fresh = fresh
  }
  #step(work: () => unknown, records?: Float64Array): unknown {
    const old = this.log[this.#at]
    if (!old && this.#fresh-- <= 0) throw new Suspended()
    const answer = old ?? { at: this.#world.table.generation, value: work(), ...(records && { records: records.slice() }) }
    if (!old) this.log.push(answer)
    this.#at++
    if (answer.records) records?.set(answer.records)
    return answer.value
  }
  get at(): number {
    return this.#at
  }
  get generation() {
    return this.#step(() => this.#world.table.generation) as number
  }
  memslotsSince(generation: number) {
    return this.#step(() => this.#world.table.since(generation))
  }
  changeMemslot(region: NativeRegion | null = null) {
    const words = new Float64Array(this.memslotWords)
    const records = words.subarray(0, recordLength)
    words[recordLength] = this.#step(() => this.#change(records, [region], true), records) as number
  }
  changeMemslots(records: Float64Array, regions: (NativeRegion | null)[]) {
    return this.#step(() => this.#change(records, regions, false), records)
  }
  #change(records: Float64Array, regions: (NativeRegion | null)[], alone: boolean): number {
    const { table } = this.#world
    const [at, before] = [table.generation, table.rows]
    const result = table.change(records, regions, alone)
    if (result !== 0) return result
    this.#world.made = [...this.#world.made, { by: this.#by, operation: this.operation, at, before, after: table.rows }]
    this.#world.past = new Map([...this.#world.past, [table.generation, table.rows]])
    return result
  }
}

interface Run {
  replay: Replay
  environment: Environment
  /** For each operation: 'made', or the code with which it was refused, and its first and last answer. */
  outcomes: { code: string; from: number; to: number }[]
  done: boolean
}

function run(by: number, program: readonly Name[], log: readonly Answer[], world: World, fresh: number): Run {
  const replay = new Replay(by, log, world, fresh)
  const outcomes: Run['outcomes'] = []
  const environment = {} as Environment
  const result = { replay, environment, outcomes, done: false }
  try {
    const memslots = (environment.memslots = makeMemslots(replay as unknown as NativeVm, new Handle(replay as unknown as NativeVm, 'this VM'), 100))
    Object.assign(environment, { one: memslots.lookup(p), two: memslots.lookup(q) })
    for (const [index, name] of program.entries()) {
      replay.operation = index
      const from = replay.at
      let code = 'made'
      try {
        operations[name].make(environment)
      } catch (error) {
        if (!(error instanceof KvmError)) throw error
        code = error.code
      }
      outcomes.push({ code, from, to: replay.at - 1 })
    }
    result.done = true
  } catch (error) {
    if (!(error instanceof Suspended)) throw error
  }
  return result
}

/** The rows without what cannot be known beforehand: new slots have no number of their own yet. */
const plain = (rows: Rows, since: number) =>
  rows
    .map(({ created, gpa, size, flags, region }) => [gpa, size, flags, region?.address, created > since ? 'new' : created].join())
    .sort()
    .join(' ')
const overlaps = (rows: Rows) => rows.some((one) => rows.some((other) => one !== other && one.gpa < other.gpa + size && other.gpa < one.gpa + size))

/** Whether an operation's outcome is right, given all that happened: an empty text, or what is wrong. */
function faultOf(by: number, index: number, name: Name, { replay: { log }, environment, outcomes }: Run, { made, past, table }: World): string {
  const operation: Operation = operations[name]
  const { code, from, to } = outcomes[index] as Run['outcomes'][number]
  const changes = made.filter((change) => change.by === by && change.operation === index)
  const numbers = operation.slots(environment).map((slot) => slot && recordOf(slot).created)
  const rowsAt = (generation: number) => past.get(generation) as Rows
  const [first, last] = [log[from]?.at ?? 0, log[to]?.at ?? 0]
  const during = [...past.keys()].filter((generation) => generation >= first && generation <= last)
  if (changes.length > 0) {
    const [{ at, before, after }] = changes as [Made]
    const expected = plain(operation.result(before, environment), at)
    return code === 'made' && changes.length === 1 && plain(after, at) === expected ? '' : `${code} ${changes.length} times, not to ${expected}`
  }
  if (code === 'conflict') {
    const states = during.map((at) =>
      rowsAt(at)
        .flatMap(({ created, changed }) => (numbers.includes(created) ? [changed] : []))
        .join()
    )
    return new Set(states).size > 1 ? '' : 'a conflict with nobody'
  }
  if (code === 'overlap') return during.some((at) => overlaps(operation.result(rowsAt(at), environment))) ? '' : 'an overlap that never was'
  // If a slot was deleted already, a second deletion is made, and another change is refused.
  const expected = name.startsWith('delete') ? 'made' : 'closed'
  const lives = numbers.every((number) => number !== undefined && table.rows.some(({ created }) => created === number))
  return code === expected && !lives ? '' : `${code} of nothing`
}

/** Whether the table of an environment, once it looks, is the VM's. */
function tableFault(by: number, program: readonly Name[], { replay }: Run, world: World): string {
  const { memslots } = run(by, program, replay.log, world, Infinity).environment
  const slots = [...memslots]
  const seen = slots.map((slot) => {
    const { created, changed } = recordOf(slot)
    return [slot.gpa, slot.id, created, changed, slot.flags, slot.mapping.address].join()
  })
  const there = world.table.rows.map(({ id, created, changed, gpa, flags, region }) => [gpa, id, created, changed, flags, region?.address].join())
  const isWhole = memslots.length === slots.length && slots.every((slot) => !slot.deleted && memslots.lookup(slot.gpa) === slot)
  return isWhole && seen.sort().join(' ') === there.sort().join(' ') ? '' : `environment ${by} has ${seen.join(' ')}, not ${there.join(' ')}`
}

/**
 * Tries all orders, and returns their number. If two orders differ only in which of two steps came first, and neither step changes anything, one of
 * the orders is enough: nobody sees the difference. So a step that was tried first here is not tried again (`asleep`) until the table has changed.
 */
function explore(programs: readonly [readonly Name[], readonly Name[]]): number {
  let orders = 0
  const visit = (world: World, runs: readonly [Run, Run], asleep: readonly number[]) => {
    const going = [0, 1].filter((by) => !(runs[by] as Run).done)
    const tried = [...asleep]
    for (const by of going.filter((by) => !asleep.includes(by))) {
      const next = { ...world, table: world.table.clone() }
      const stepped = run(by, programs[by] as readonly Name[], (runs[by] as Run).replay.log, next, 1)
      const changes = next.table.generation !== world.table.generation
      visit(next, by === 0 ? [stepped, runs[1]] : [runs[0], stepped], changes ? [] : [...tried])
      if (!changes) tried.push(by)
    }
    if (going.length > 0) return
    orders++
    for (const by of [0, 1]) {
      const [program, ran] = [programs[by] as Name[], runs[by] as Run]
      const faults = program.map((name, index) => faultOf(by, index, name, ran, world))
      faults.push(tableFault(by, program, ran, { ...world, table: world.table.clone() }))
      if (faults.some((fault) => fault !== '')) expect({ programs, by, faults, made: world.made }).toBeNull()
    }
  }
  const world = { table: start.clone(), made: [], past: new Map([[start.generation, start.rows]]) }
  // Both environments know the table when they begin.
  visit(world, [0, 1].map((by) => run(by, programs[by] as Name[], run(by, [], [], world, Infinity).replay.log, world, 0)) as [Run, Run], [])
  return orders
}

const names = Object.keys(operations) as Name[]
/** Two changes each: some of them, or with NODE_KVM_ALL_ORDERS all that there are, which takes minutes. */
const programs: [Name, Name][] = process.env['NODE_KVM_ALL_ORDERS']
  ? names
      .flatMap((one) => names.map((other): [Name, Name] => [one, other]))
      .filter(([one, other]) => one === 'create' || ![one, other].includes('delete mine'))
  : [
      ['move', 'flags'],
      ['delete', 'create'],
      ['swap', 'swap'],
      ['create', 'delete mine'],
      ['move there', 'delete'],
      ['replace', 'move'],
      ['rebind', 'swap'],
      ['flags', 'replace'],
      ['create', 'rebind']
    ]

test('every order of two environments with two changes each leaves one table, and each change whole or refused', () => {
  let orders = 0
  for (const [index, one] of programs.entries()) for (const other of programs.slice(index)) orders += explore([one, other])
  console.log(`${orders} orders of ${(programs.length * (programs.length + 1)) / 2} pairs of programs`)
  expect(orders).toBeGreaterThan(1000)
})

test('the table of the model answers as the add-on does', (context) => {
  needsKvm(context)
  const system = native.open('/dev/kvm', true) as Exclude<ReturnType<typeof native.open>, number>
  const real = system.createVm(0) as Exclude<ReturnType<typeof system.createVm>, number>
  const model = new Table(32)
  const memory = [0, 1].map(() => native.map({ kind: 'anonymous', size: 4 * size }) as NativeRegion)
  let seed = 7
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const pick = <T>(from: readonly T[]) => from[random(from.length)] as T
  const change = (): [number[], NativeRegion | null] => {
    const row = random(4) === 0 ? undefined : pick([undefined, ...model.rows])
    const state = row ? [row.id, random(8) === 0 ? row.changed + 1 : row.changed] : random(8) === 0 ? [7, 1] : [-1, 0]
    const goes = row !== undefined && random(3) === 0
    const region = row === undefined || random(6) === 0 ? pick(memory) : null
    const extent = row && random(4) > 0 ? [row.size, row.offset] : [(1 + random(2)) * size, random(2) * size]
    return [[...state, random(16) * size, goes ? 0 : (extent[0] as number), extent[1] as number, random(2), -1, 0], goes ? null : region]
  }
  const answers = new Map<number, number>()
  for (let round = 0; round < 1000; round++) {
    const alone = random(2) === 0
    const changes = Array.from({ length: alone ? 1 : 1 + random(4) }, change)
    const ids = changes.flatMap(([[id]]) => (id === -1 ? [] : [id]))
    if (new Set(ids).size < ids.length) continue
    const [ours, theirs] = [0, 1].map(() => new Float64Array(changes.flatMap(([numbers]) => numbers))) as [Float64Array, Float64Array]
    const regions = changes.map(([, region]) => region)
    const expected = model.change(ours, regions, alone)
    let answered: number
    if (alone) {
      const words = new Float64Array(real.memslotWords)
      words.set(theirs)
      regions[0] ? real.changeMemslot(regions[0]) : real.changeMemslot()
      theirs.set(words.subarray(0, recordLength))
      answered = words[recordLength] as number
    } else answered = real.changeMemslots(theirs, regions)
    expect(answered).toBe(expected)
    // The order of the ioctls decides which of several overlaps is reported.
    if (alone || expected !== -constants.errno.EEXIST) expect([...theirs]).toEqual([...ours])
    answers.set(expected, (answers.get(expected) ?? 0) + 1)
    const since = random(model.generation + 1)
    const [one, other] = [model.since(since), real.memslotsSince(since)]
    expect([other.generation, ...other.rows]).toEqual([one.generation, ...one.rows])
    expect(other.regions.map((region) => region?.address)).toEqual(one.regions.map((region) => region?.address))
  }
  expect(answers.size).toBeGreaterThan(3)
  real.close()
  system.close()
})
