// The thread that serves a page comes to wait for that page outside of a run, in the way that the argument names.
import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'

const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

/** Reads a page that its handler failed at first, and that was made accessible afterwards. */
function readFailed() {
  process.on('uncaughtException', () => {})
  let asked = 0
  const lazy = Mapping.anonymous(65536)
  lazy.onMissing(() => {
    if (asked++ === 0) throw new Error('not yet')
    return new Uint8Array(4096).fill(7)
  })
  try {
    lazy.read(0, 1)
  } catch (error) {
    console.log(error.code)
  }
  lazy.protect('rw')
  console.log(lazy.read(0, 1)[0], asked)
}

/** Reads a page that was there, and was taken out of the file through another mapping. */
async function readHole() {
  const lazy = Mapping.memfd(65536)
  lazy.onMissing(() => new Uint8Array(4096).fill(7))
  const isMemfd = (fd) => existsSync(`/proc/self/fd/${fd}`) && readlinkSync(`/proc/self/fd/${fd}`).startsWith('/memfd:node-kvm')
  const other = Mapping.file(`/proc/self/fd/${readdirSync('/proc/self/fd').find(isMemfd)}`, 65536, { shared: true })
  console.log(lazy.read(0, 1)[0])
  other.punchHole(0, 4096)
  try {
    lazy.read(0, 1)
  } catch (error) {
    console.log(error.code)
  }
  // The read succeeds once the event loop has served the page.
  for (;;)
    try {
      console.log(lazy.read(0, 1)[0])
      return
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
}

/** Asks for the registers of a vCPU while a Worker asks KVM to translate an address on it, and the vCPU's page tables are missing. */
async function waitForCall() {
  const vm = Kvm.open().createVm()
  const lazy = Mapping.anonymous(1 << 20)
  lazy.onMissing(() => null)
  vm.memslots.create({ gpa: 0, mapping: lazy })
  const vcpu = vm.createVcpu().enter('long', { ip: 0x100, tables: 0x1_0000, identityBytes: 2 ** 30 })
  lazy.advise('dontneed')
  const worker = new Worker(new URL(import.meta.url), { workerData: vm.share() })
  await new Promise((resolve) => worker.once('message', resolve))
  pause(100)
  console.log(vcpu.registers.get().rip)
  await new Promise((resolve) => worker.once('exit', resolve))
}

function inWorker() {
  const vcpu = Vm.attach(workerData).vcpu(0)
  parentPort.postMessage('')
  vcpu.debug.translate(0x40_0000n)
}

if (!isMainThread) inWorker()
else await { copy: readFailed, hole: readHole, call: waitForCall }[process.argv[2]]()
