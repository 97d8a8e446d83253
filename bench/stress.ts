// Puts the most costly promises under load for a while: npm run stress [-- --seconds N]. It prints one JSON line; its status is 1 when a promise was
// broken.
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { type ExitHandlers, KiB, Kvm, Mapping, type Memslot, type Vcpu, type Vm } from 'node-kvm'
import { programs, sweeper } from './guests.js'

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '30' } } })
const seconds = Number(values.seconds)
if (!(seconds > 0)) throw new Error('--seconds must be a number above 0')

const result = {
  moves: 0,
  kicks: 0,
  lostKicks: 0,
  wrongWords: 0,
  mmioExits: 0,
  workersTerminated: 0,
  vmsClosed: 0,
  leakedDescriptors: 0,
  leakedThreads: 0,
  /** In bytes. It is printed and not judged, since a heap that grows and shrinks is no leak. */
  residentGrowth: 0,
  ok: false
}
const kvm = Kvm.open()
const [here, there] = [0x100_0000, 0x800_0000]
const descriptors = () => readdirSync('/proc/self/fd').length
const threads = () => readdirSync('/proc/self/task').length
const progress = (text: string) => process.stderr.isTTY && process.stderr.write(`\r\u001b[K${text}`)

function words(word: bigint): Mapping {
  const mapping = Mapping.anonymous(4 * KiB)
  mapping.write(0, new Uint8Array(new BigUint64Array(512).fill(word).buffer))
  return mapping
}
async function withVm(use: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = kvm.createVm()
  try {
    await use(vm)
  } finally {
    vm.close()
  }
}
/** Calls `once` again and again for a share of the time. */
async function during(share: number, what: string, once: () => Promise<void> | void): Promise<void> {
  const end = Date.now() + seconds * 1000 * share
  for (let told = 0; Date.now() < end; ) {
    await once()
    if (Date.now() - told > 200) {
      told = Date.now()
      progress(`${what}: ${JSON.stringify(result)}`)
    }
  }
}

const pairs = 16
const stride = 64 * KiB

/** Two guests check every word that they read, while slots change places in pairs, all pairs in one transaction. */
const moves = () =>
  withVm(async (vm) => {
    const slots = Array.from({ length: pairs }, (_, pair) =>
      [here, there].map((base, side) => vm.memslots.create({ gpa: base + pair * stride, mapping: words(BigInt(side + 1)) }))
    ) as [Memslot, Memslot][]
    const handlers: ExitHandlers = {
      'io-out': () => void result.wrongWords++,
      mmio: () => void result.mmioExits++
    }
    const vcpus = programs(
      vm,
      [here, there].map((gpa) => ({
        source: sweeper,
        registers: { r8: BigInt(gpa), rsi: BigInt(gpa + pairs * stride), r10: BigInt(stride), rbx: 1n, rdx: 2n }
      }))
    )
    const ended = vcpus.map((vcpu) => vcpu.start(handlers))
    await during(0.5, 'moves', async () => {
      for (let batch = 0; batch < 10; batch++) {
        vm.memslots.transaction((tx) => {
          for (const [one, other] of slots) {
            const { gpa } = one
            tx.move(one, other.gpa)
            tx.move(other, gpa)
          }
        })
        result.moves += 2 * pairs
      }
      await turn()
    })
    for (const vcpu of vcpus) await vcpu.stop()
    for (const end of await Promise.all(ended)) if (end.reason !== 'stopped') throw new Error(`a guest ended by ${end.reason}`)
    for (const vcpu of vcpus) if (vcpu.registers.get().r9 === 0n) throw new Error('a guest read nothing')
  })

/** Each kick comes at another moment: in the guest, on the way in, on the way out, or before. */
const kicks = () =>
  withVm(async (vm) => {
    const [vcpu] = programs(vm, [{ source: '1: jmp 1b' }]) as [Vcpu]
    let answered = 0
    const ended = vcpu.start({ interrupted: () => void answered++ })
    await during(0.2, 'kicks', async () => {
      for (let pause = Math.random() * 2000; pause > 0; pause--);
      vcpu.kick()
      result.kicks++
      const limit = Date.now() + 5000
      while (answered < result.kicks && Date.now() < limit) await turn()
      if (answered < result.kicks) {
        result.lostKicks++
        answered = result.kicks
      }
    })
    await vcpu.stop()
    await ended
  })

const workerSource = `
  const { parentPort } = require('node:worker_threads')
  parentPort.once('message', (token) => import(${JSON.stringify(import.meta.resolve('node-kvm'))}).then(({ Vm }) => {
    const vcpu = Vm.attach(token).vcpu(0)
    parentPort.postMessage('running')
    vcpu.run()
    parentPort.postMessage('ended')
  }))`

async function terminateWorker(): Promise<void> {
  await withVm(async (vm) => {
    programs(vm, [{ source: '1: jmp 1b' }])
    const worker = new Worker(workerSource, { eval: true })
    worker.postMessage(vm.share())
    await once(worker, 'message')
    await sleep(Math.random() * 5)
    await worker.terminate()
    result.workersTerminated++
  })
}

async function closeWhileRunning(): Promise<void> {
  let ended: Promise<unknown>[] = []
  await withVm(async (vm) => {
    ended = programs(vm, [{ source: '1: jmp 1b' }, { source: '1: inc %rax; jmp 1b' }]).map((vcpu) => vcpu.start({}))
    if (Math.random() < 0.5) await turn()
  })
  await Promise.all(ended)
  result.vmsClosed++
}

// The first Worker leaves some things for good, such as the thread that watches Workers' event loops. That is no leak.
await terminateWorker()
await closeWhileRunning()
globalThis.gc?.()
await sleep(100)
const before = { descriptors: descriptors(), threads: threads(), resident: process.memoryUsage.rss() }
await moves()
await kicks()
await during(0.2, 'Workers', terminateWorker)
await during(0.1, 'VMs', closeWhileRunning)
globalThis.gc?.()
await sleep(100)
result.leakedDescriptors = Math.max(0, descriptors() - before.descriptors)
result.leakedThreads = Math.max(0, threads() - before.threads)
result.residentGrowth = process.memoryUsage.rss() - before.resident
const broken = result.lostKicks + result.wrongWords + result.mmioExits + result.leakedDescriptors + result.leakedThreads
result.ok = broken === 0 && Math.min(result.moves, result.kicks, result.workersTerminated, result.vmsClosed) > 0
progress('')
console.log(JSON.stringify(result))
process.exitCode = result.ok ? 0 : 1
