// Four Workers change the same memslots for a while, and the results are compared with the kernel's own table: npm run stress:memslots [-- --seconds
// N]. It prints one JSON line; its status is 1 when a change was lost or made twice, or a table differs from the kernel's.
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { KiB, Kvm, KvmError, Mapping, type Memslot, Vm, type VmToken } from 'node-kvm'
import { tables } from 'node-kvm/observe'

const workers = 4
const places = 24
const size = 4 * KiB

/** Words that all Workers share: how many of them wait; and their order, which is to go on (0), to wait (1) or to end (2). */
const [waiting, order] = [0, 1]

interface Counts {
  changes: number
  conflicts: number
  /** Changes that were refused because another slot was in the way. */
  overlaps: number
  /** Slots that only this Worker changes and that were not as it had left them. */
  lost: number
  /** Slots that are twice in a table, or that overlap in it. */
  double: number
}
interface Given {
  token: VmToken
  words: Int32Array
  number: number
}

const rowsOf = (vm: Vm) => [...vm.memslots].map(({ id, gpa, size, hva, flags }) => [gpa, id, size, hva, flags].join()).join(' ')
const random = (below: number) => Math.floor(Math.random() * below)
const pick = <T>(from: readonly T[]) => from[random(from.length)] as T
const anyGpa = () => random(places) * size

/** Changes slots that belong to this Worker alone, and slots that all Workers change. */
class Changes {
  readonly counts: Counts = { changes: 0, conflicts: 0, overlaps: 0, lost: 0, double: 0 }
  readonly #vm: Vm
  readonly #memory = [0, 1].map(() => Mapping.anonymous(size)) as [Mapping, Mapping]
  /** Where this Worker's own slot must be, and with which memory. */
  #own: { slot: Memslot; gpa: number; mapping: Mapping } | undefined

  constructor(vm: Vm) {
    this.#vm = vm
  }

  /** Makes the change, unless it is refused for a reason that another Worker may have caused. */
  #try(change: () => void): boolean {
    try {
      change()
      this.counts.changes++
      return true
    } catch (error) {
      const code = error instanceof KvmError ? error.code : undefined
      if (code === 'conflict') this.counts.conflicts++
      else if (code === 'overlap') this.counts.overlaps++
      else if (code !== 'closed') throw error
      return false
    }
  }

  #look(): void {
    const slots = [...this.#vm.memslots]
    for (const [index, slot] of slots.entries()) {
      const below = slots[index - 1]
      if (below && below.gpa + below.size > slot.gpa) this.counts.double++
    }
    if (new Set(slots.map(({ id }) => id)).size < slots.length) this.counts.double++
    const own = this.#own
    if (own && (own.slot.deleted || own.slot.gpa !== own.gpa || own.slot.mapping !== own.mapping || this.#vm.memslots.lookup(own.gpa) !== own.slot))
      this.counts.lost++
  }

  #changeOwn(): void {
    const gpa = anyGpa()
    const own = this.#own
    const mapping = pick(this.#memory)
    if (!own) this.#try(() => void (this.#own = { slot: this.#vm.memslots.create({ gpa, mapping }), gpa, mapping }))
    else if (random(4) === 0) {
      this.#try(() => own.slot.delete())
      this.#own = undefined
    } else if (random(3) === 0) {
      if (this.#try(() => own.slot.rebind(mapping))) own.mapping = mapping
    } else if (random(2) === 0) {
      if (this.#try(() => own.slot.move(gpa))) own.gpa = gpa
    } else this.#moveBoth(own)
  }

  /** The Worker's own slot and a shared one change places, or neither does. */
  #moveBoth(own: { slot: Memslot; gpa: number }): void {
    const other = this.#shared()
    if (!other) return
    const { gpa } = other
    const exchange = () =>
      this.#vm.memslots.transaction((tx) => {
        tx.move(own.slot, gpa)
        tx.move(other, own.gpa)
      })
    if (this.#try(exchange)) own.gpa = gpa
  }

  /** Picks a slot with two pages of memory behind it, so that all Workers know each other's slots. */
  #shared(): Memslot | undefined {
    const shared = [...this.#vm.memslots].filter(({ mapping }) => mapping.size > size)
    return shared.length > 0 ? pick(shared) : undefined
  }

  #changeShared(mapping: Mapping): void {
    const slot = this.#shared()
    if (!slot || (random(4) === 0 && this.#vm.memslots.length < places / 2))
      this.#try(() => void this.#vm.memslots.create({ gpa: anyGpa(), mapping, size }))
    else
      this.#try(
        pick([
          () => slot.move(anyGpa()),
          () => slot.setFlags({ logDirty: random(2) === 0 }),
          () => slot.rebind(mapping),
          () => slot.delete(),
          () =>
            this.#vm.memslots.transaction((tx) => {
              tx.delete(slot)
              tx.create({ gpa: slot.gpa, mapping, size })
            })
        ])
      )
  }

  /** Makes one change, and at times only looks. */
  next(mapping: Mapping): void {
    if (random(2) === 0) this.#changeOwn()
    else this.#changeShared(mapping)
    if (random(4) === 0) this.#look()
  }
}

function work({ token, words }: Given): void {
  const vm = Vm.attach(token)
  const changes = new Changes(vm)
  const shared = Mapping.anonymous(2 * size)
  for (;;) {
    const told = Atomics.load(words, order)
    if (told === 0) {
      changes.next(shared)
      continue
    }
    // This reports each table as it is once nobody changes anything.
    Atomics.add(words, waiting, 1)
    Atomics.notify(words, waiting)
    for (let count = 0; (count = Atomics.load(words, waiting)) < workers; ) Atomics.wait(words, waiting, count)
    parentPort?.postMessage({ counts: changes.counts, rows: rowsOf(vm) })
    if (told === 2) return
    Atomics.wait(words, order, told)
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '30' } } })
  const seconds = Number(values.seconds)
  if (!(seconds > 0)) throw new Error('--seconds must be a number above 0')
  const vm = Kvm.open().createVm()
  const words = new Int32Array(new SharedArrayBuffer(8))
  const crew = Array.from(
    { length: workers },
    (_, number) => new Worker(new URL(import.meta.url), { workerData: { token: vm.share(), words, number } satisfies Given })
  )
  const result = { changes: 0, conflicts: 0, overlaps: 0, lost: 0, double: 0, compared: 0, equalToKernel: true as boolean | null, ok: false }
  let errors = 0
  for (const worker of crew)
    worker.on('error', (error) => {
      errors++
      console.error(error)
    })

  /** Stops all Workers and compares: their tables, this one and the kernel's must be the same. */
  const compare = async (told: 1 | 2) => {
    const reports = crew.map((worker) => once(worker, 'message').then(([message]) => message as { counts: Counts; rows: string }))
    Atomics.store(words, waiting, 0)
    Atomics.store(words, order, told)
    const all = await Promise.all(reports)
    const { slots, evidence } = tables(vm)
    const kernel = slots
      .filter(({ addressSpace }) => addressSpace === 0)
      .map(({ id, gpa, size, hva, flags }) => [gpa, id, size, hva, flags].join())
      .join(' ')
    result.compared++
    if (evidence.source !== 'bpf') result.equalToKernel = null
    else if (result.equalToKernel !== null) result.equalToKernel &&= [rowsOf(vm), ...all.map(({ rows }) => rows)].every((rows) => rows === kernel)
    for (const name of ['changes', 'conflicts', 'overlaps', 'lost', 'double'] as const)
      result[name] = all.reduce((sum, { counts }) => sum + counts[name], 0)
    Atomics.store(words, order, 0)
    Atomics.notify(words, order)
  }

  const end = Date.now() + seconds * 1000
  while (Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(500, end - Date.now())))
    await compare(Date.now() < end ? 1 : 2)
  }
  result.ok = errors === 0 && result.lost === 0 && result.double === 0 && result.equalToKernel !== false && result.changes > 0
  console.log(JSON.stringify(result))
  process.exit(result.ok ? 0 : 1)
}

if (isMainThread) await main()
else work(workerData as Given)
