// Compares vCPUs beside Node with threads beside Node, in interleaved rounds of one run: medians and their ratio. It prints and asserts nothing.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { KiB, Kvm, Mapping, type Vcpu, type Vm } from 'node-kvm'
import { programs, writesAPort } from './guests.js'

interface Baseline {
  /** Returns nanoseconds for each round. */
  pingPong(count: number): Promise<number>
  setSpinning(on: boolean): void
  startVcpus(vm: number, one: number, other: number): void
  stopVcpus(): void
  /** Returns nanoseconds for a rebind under them. */
  rebind(count: number): number
}

const rounds = Number(process.argv[2] ?? 5)
const folder = mkdtempSync(join(tmpdir(), 'node-kvm-bench-'))
const quantile = (values: number[], part: number) => values.slice().sort((a, b) => a - b)[Math.floor(values.length * part)] as number
const median = (values: number[]) => quantile(values, 0.5)
const spin = '1: jmp 1b'

function compile(): Baseline {
  const headers = [join(dirname(process.execPath), '../include/node'), '/usr/include/node'].find((place) => existsSync(join(place, 'uv.h')))
  if (headers === undefined) throw new Error('the headers of libuv are missing; install the development files of this Node')
  const module = join(folder, 'threads.node')
  execFileSync('gcc', ['-O2', '-shared', '-fPIC', '-pthread', `-I${headers}`, '-o', module, 'bench/threads.c'], { stdio: 'inherit' })
  return createRequire(import.meta.url)(module)
}

async function withVm<T>(use: (vm: Vm) => Promise<T>): Promise<T> {
  using kvm = Kvm.open()
  using vm = kvm.createVm()
  return await use(vm)
}

/** Returns nanoseconds for each of `count` port writes that a handler takes. */
const exits = (count: number) =>
  withVm(async (vm) => {
    const vcpu = writesAPort(vm)
    let seen = 0
    const start = process.hrtime.bigint()
    await vcpu.start({
      'io-out': () => {
        if (++seen === count) void vcpu.stop()
      }
    })
    return Number(process.hrtime.bigint() - start) / count
  })

const runLoop = `(vcpu, count) => {
  let sum = 0
  const start = process.hrtime.bigint()
  for (let round = 0; round < count; round++) sum += vcpu.run().port
  if (sum !== 0x10 * count) throw new Error('the guest wrote something else')
  return Number(process.hrtime.bigint() - start) / count
}`
const loop = new Function(`return ${runLoop}`)() as (vcpu: Vcpu, count: number) => number
const loopSource = [{ source: '1: out %al, $0x10; jmp 1b' }]

const inMain = (count: number) => withVm(async (vm) => loop(programs(vm, loopSource)[0] as Vcpu, count))
const inWorker = (count: number) =>
  withVm(async (vm) => {
    programs(vm, loopSource)
    const worker = new Worker(
      `const { parentPort } = require('node:worker_threads')
       parentPort.once('message', (token) => import(${JSON.stringify(import.meta.resolve('node-kvm'))}).then(({ Vm }) => {
         const vcpu = Vm.attach(token).vcpu(0)
         const loop = ${runLoop}
         loop(vcpu, 1000)
         parentPort.postMessage(loop(vcpu, ${count}))
       }))`,
      { eval: true }
    )
    worker.postMessage(vm.share())
    const [nanoseconds] = await once(worker, 'message')
    await worker.terminate()
    return nanoseconds as number
  })

const twoSpinning = (vm: Vm) => programs(vm, [{ source: spin }, { source: spin }])

/** Measures beside two vCPUs that spin, each on a thread of the library. */
const besideVcpus = <T>(use: (vm: Vm) => T | Promise<T>) =>
  withVm(async (vm) => {
    const vcpus = twoSpinning(vm)
    const ended = vcpus.map((vcpu) => vcpu.start({}))
    await sleep(20)
    const found = await use(vm)
    for (const vcpu of vcpus) await vcpu.stop()
    await Promise.all(ended)
    return found
  })
/** Measures beside the same guests in the same VM, which threads of C run. */
const besideVcpusOfC = <T>(baseline: Baseline, use: () => T | Promise<T>) =>
  withVm(async (vm) => {
    twoSpinning(vm)
    baseline.startVcpus(descriptorOf('kvm-vm'), descriptorOf('kvm-vcpu:0'), descriptorOf('kvm-vcpu:1'))
    await sleep(20)
    try {
      return await use()
    } finally {
      baseline.stopVcpus()
    }
  })

const linkOf = (path: string) => {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}
/** Finds a descriptor of the only VM that is open: `kvm-vm`, `kvm-vcpu:0` and so on. */
function descriptorOf(name: string): number {
  const found = readdirSync('/proc/self/fd').find((fd) => linkOf(`/proc/self/fd/${fd}`) === `anon_inode:${name}`)
  if (found === undefined) throw new Error(`no descriptor of ${name}`)
  return Number(found)
}

function rebinds(vm: Vm, count: number): number {
  const mappings = [Mapping.anonymous(4 * KiB), Mapping.anonymous(4 * KiB)] as const
  const slot = vm.memslots.create({ gpa: 0x10_0000, mapping: mappings[0] })
  const start = process.hrtime.bigint()
  for (let round = 0; round < count; round++) slot.rebind(mappings[(round + 1) % 2] as Mapping)
  return Number(process.hrtime.bigint() - start) / count
}

/** Returns the nanoseconds by which timers of a millisecond are late, as the 99th percentile. */
async function lateness(count: number): Promise<number> {
  const late: number[] = []
  for (let timer = 0; timer < count; timer++) {
    const due = performance.now() + 1
    await new Promise((resolve) => setTimeout(resolve, 1))
    late.push(performance.now() - due)
  }
  return quantile(late, 0.99) * 1e6
}

try {
  const baseline = compile()
  const besideThreads = async (count: number) => {
    baseline.setSpinning(true)
    const found = await lateness(count)
    baseline.setSpinning(false)
    return found
  }
  const scenarios: [name: string, count: number, ours: (count: number) => Promise<number>, peer: (count: number) => number | Promise<number>][] = [
    ['exit handled from a vCPU thread / eventfd ping-pong through libuv', 5000, exits, (count) => baseline.pingPong(count)],
    ['run() in a Worker / in the main thread', 10_000, inWorker, inMain],
    [
      'rebind() under 2 running vCPUs / 2 ioctls and 2 kicks in C',
      2000,
      (count) => besideVcpus((vm) => rebinds(vm, count)),
      (count) => besideVcpusOfC(baseline, () => baseline.rebind(count))
    ],
    ['lateness (p99) of 1 ms timers beside 2 vCPUs / 2 spinning threads', 1000, (count) => besideVcpus(() => lateness(count)), besideThreads],
    [
      'lateness (p99) of 1 ms timers beside 2 vCPUs / the same vCPUs run by C',
      1000,
      (count) => besideVcpus(() => lateness(count)),
      (count) => besideVcpusOfC(baseline, () => lateness(count))
    ]
  ]
  console.log(`medians of ${rounds} rounds, nanoseconds; the ratio is the median of the rounds' ratios`)
  console.log(`${'scenario'.padEnd(70)} ${'node-kvm'.padStart(12)} ${'peer'.padStart(12)} ${'ratio'.padStart(7)}`)
  for (const [name, count, ours, peer] of scenarios.filter(([name]) => name.includes(process.argv[3] ?? ''))) {
    const pairs: [number, number][] = []
    await ours(Math.ceil(count / 10))
    for (let round = 0; round < rounds; round++) pairs.push([await ours(count), await peer(count)])
    const [mine, theirs, ratio] = [median(pairs.map(([a]) => a)), median(pairs.map(([, b]) => b)), median(pairs.map(([a, b]) => a / b))]
    console.log(`${name.padEnd(70)} ${mine.toFixed(0).padStart(12)} ${theirs.toFixed(0).padStart(12)} ${ratio.toFixed(3).padStart(7)}`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
