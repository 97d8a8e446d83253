// Compares node-kvm with C, in interleaved rounds of one run: medians and their ratio. It prints and asserts nothing.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { GiB, KiB, Kvm, Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { writesAPort } from './guests.js'

const require = createRequire(import.meta.url)
const rounds = Number(process.argv[2] ?? 7)
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-bench-'))
const baseline = join(folder, 'baseline')
const median = (values: number[]) => values.slice().sort((a, b) => a - b)[values.length >> 1] as number

interface Scenario {
  name: string
  arguments: [scenario: string, count: number, present: number]
  /** Splits each round into so many short pieces. Where a few nanoseconds matter, the machine would drift within a long piece. */
  pieces?: number
  /** Returns nanoseconds for each operation. */
  measure(count: number, present: number): number
}

function time(count: number, work: () => void): number {
  const start = process.hrtime.bigint()
  work()
  return Number(process.hrtime.bigint() - start) / count
}

function withVm<T>(use: (vm: Vm) => T): T {
  using kvm = Kvm.open()
  using vm = kvm.createVm()
  return use(vm)
}

function exits(vcpu: Vcpu, count: number): void {
  let sum = 0
  for (let round = 0; round < count; round++) {
    const exit = vcpu.run()
    if (exit.reason !== 'io-out') throw new Error(exit.reason)
    sum += exit.port + (exit.data[0] as number)
  }
  if (sum !== 0x10 * count) throw new Error(`the guest wrote something else: ${sum}`)
}

/** The VM stays for all rounds, as in C: the cost of its first exits is not measured. */
function onOneVm(measureOn: (vm: Vm) => (count: number) => number): (count: number) => number {
  let measure: ((count: number) => number) | undefined
  return (count) => (measure ??= measureOn(Kvm.open().createVm()))(count)
}

const pio = onOneVm((vm) => {
  const vcpu = writesAPort(vm)
  return (count) => time(count, () => exits(vcpu, count))
})

/**
 * The bytes by which the heap grows in an exit: 0, except for what the runtime does meanwhile. No collection happens in between, since it would show
 * as a fall.
 */
function heapPerExit(count: number): number {
  const growth = (exits: number) => {
    const before = process.memoryUsage().heapUsed
    pio(exits)
    return process.memoryUsage().heapUsed - before
  }
  growth(count)
  return growth(count) / count
}

const registers = onOneVm((vm) => {
  const vcpu = vm.createVcpu()
  const values = vcpu.registers.get()
  return (count) =>
    time(count, () => {
      for (let round = 0; round < count; round++) {
        vcpu.registers.get(values)
        values.rax += 1n
        vcpu.registers.set(values)
      }
    })
})

/** As in C, the cost of a new table's first changes is not measured. */
const warmUp = 500

const slots = (count: number, present: number) =>
  withVm((vm) => {
    // As in C, there is a vCPU: KVM asks each vCPU to drop its translations of a slot.
    vm.createVcpu()
    using mapping = Mapping.anonymous(4 * KiB)
    for (let slot = 0; slot < present; slot++) vm.memslots.create({ gpa: slot * 8 * KiB, mapping })
    const free = present * 8 * KiB
    const change = (count: number) => {
      for (let round = 0; round < count; round++) {
        const slot = vm.memslots.create({ gpa: free, mapping })
        slot.move(free + 64 * KiB)
        slot.delete()
      }
    }
    change(warmUp)
    return time(count, () => change(count))
  })

/** Moves every slot of a table into the gap behind it and back: in turns by one call for each, and by one transaction for all. */
const transaction = (count: number) =>
  withVm((vm) => {
    using mapping = Mapping.anonymous(4 * KiB)
    const all = Array.from({ length: count }, (_, slot) => vm.memslots.create({ gpa: slot * 8 * KiB, mapping }))
    const gap = (slot: number) => slot * 8 * KiB + 4 * KiB
    const bare: number[] = []
    const together: number[] = []
    for (let round = 0; round < rounds; round++) {
      bare.push(time(count, () => all.forEach((slot, index) => slot.move(gap(index)))))
      together.push(time(count, () => vm.memslots.transaction((tx) => all.forEach((slot, index) => tx.move(slot, index * 8 * KiB)))))
    }
    const figures = [median(bare), median(together)].map((value) => value.toFixed(0).padStart(14)).join(' ')
    return `${`transaction of ${count} moves / bare moves`.padEnd(53)} ${figures} ${''.padStart(14)} ${ratio(together, bare).toFixed(3).padStart(9)}`
  })

const memory = (write: boolean) => () => {
  using guest = Mapping.anonymous(GiB, { populate: true })
  const own = new Uint8Array(MiB).fill(1)
  return time(1, () => {
    for (let offset = 0; offset < GiB; offset += MiB) write ? guest.write(offset, own) : guest.readInto(offset, own)
  })
}

const scenarios: Scenario[] = [
  { name: 'exit by port write', arguments: ['pio', 2000, 0], pieces: 10, measure: pio },
  { name: 'get and set registers', arguments: ['registers', 2000, 0], pieces: 10, measure: registers },
  ...[1, 1000, 32_000].map((present) => ({
    name: `slot create, move, delete with ${present}`,
    arguments: ['slots', 1000, present] as ['slots', number, number],
    pieces: 2,
    measure: slots
  })),
  { name: 'read 1 GiB', arguments: ['read', 1, 0], measure: memory(false) },
  { name: 'write 1 GiB', arguments: ['write', 1, 0], measure: memory(true) }
]

type InNode = (scenario: string, count: number, present: number) => number

function compile(): InNode {
  execFileSync('gcc', ['-O2', '-o', baseline, 'bench/baseline.c'], { stdio: 'inherit' })
  const module = join(folder, 'baseline.node')
  const headers = dirname(require.resolve('node-api-headers/include/node_api.h'))
  execFileSync('gcc', ['-O2', '-shared', '-fPIC', '-DIN_NODE', `-I${headers}`, '-o', module, 'bench/baseline.c'], { stdio: 'inherit' })
  return require(module)
}

/** The ratio of `values` to `reference`, round by round, so that a slow moment of the machine affects both. */
const ratio = (values: number[], reference: number[]) => median(values.map((value, index) => value / (reference[index] as number)))

function compare({ name, arguments: [scenario, count, present], pieces = 1, measure }: Scenario, inNode: InNode): string {
  const alone: number[] = []
  const inside: number[] = []
  const ours: number[] = []
  for (let piece = 0; piece < pieces; piece++) measure(count, present)
  for (let round = 0; round < rounds * pieces; round++) {
    alone.push(Number(execFileSync(baseline, [scenario, String(count), String(present)], { encoding: 'utf8' })))
    inside.push(inNode(scenario, count, present))
    ours.push(measure(count, present))
  }
  const figures = [median(alone), median(inside), median(ours), median(ours.map((value, index) => value - (inside[index] as number)))].map((value) =>
    value.toFixed(0).padStart(14)
  )
  return `${name.padEnd(38)} ${figures.join(' ')} ${ratio(ours, alone).toFixed(3).padStart(9)} ${ratio(ours, inside).toFixed(3).padStart(9)}`
}

/**
 * A change of the memslots sleeps in the kernel until others have let go (synchronize_srcu). On a machine that has nothing else to do the processors
 * sleep, too. Waking them costs more than the change, and by varying amounts: C alone took 84 to 141 microseconds, but 47 beside a program that keeps
 * a processor awake.
 */
function besideBusyLoop<T>(work: () => T): T {
  const busy = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' })
  try {
    return work()
  } finally {
    busy.kill('SIGKILL')
  }
}

try {
  const inNode = compile()
  console.log(
    `medians of ${rounds} rounds, nanoseconds an operation; ratios of node-kvm to C as a program of its own, and to the same C inside this process`
  )
  console.log(
    `${'scenario'.padEnd(38)} ${['C', 'C in Node', 'node-kvm', 'added'].map((head) => head.padStart(14)).join(' ')} ${'ratio'.padStart(9)} ${'in Node'.padStart(9)}`
  )
  for (const scenario of scenarios.filter(({ name }) => name.includes(process.argv[3] ?? '')))
    console.log(scenario.measure === slots ? besideBusyLoop(() => compare(scenario, inNode)) : compare(scenario, inNode))
  if ('transaction of slots'.includes(process.argv[3] ?? ''))
    for (const count of [1000, 32_000]) console.log(besideBusyLoop(() => transaction(count)))
  console.log(`\nheap growth an exit, over 100,000: ${heapPerExit(100_000).toFixed(2)} bytes`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
