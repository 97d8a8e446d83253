// The thread that serves a page comes to wait for it outside of a run, in the way that the argument names.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'

const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

/** Reads a page that its handler failed first, and that was made accessible since. */
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

/** Asks for the registers of a vCPU that a Worker asks KVM to translate an address on: its page tables are missing. */
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
  console.log(vcpu.getRegisters().rip)
  await new Promise((resolve) => worker.once('exit', resolve))
}

function inWorker() {
  const vcpu = Vm.attach(workerData).vcpu(0)
  parentPort.postMessage('')
  vcpu.translateLinear(0x40_0000n)
}

if (!isMainThread) inWorker()
else if (process.argv[2] === 'copy') readFailed()
else await waitForCall()
