// A Worker maps memory whose pages a native thread serves, gives it to this thread's VM, and ends. The Workers that come after it cause its stack,
// with its thread-local memory, to be given back to the system.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'
import { Guest } from '../../dist/lib/testing/index.js'

const exitOf = (worker) => new Promise((resolve) => worker.once('exit', resolve))

if (!isMainThread) {
  if (workerData) {
    const vm = Vm.attach(workerData)
    const lazy = Mapping.anonymous(1 << 20)
    lazy.onMissing({ content: new Uint8Array(1 << 20).fill(7) })
    vm.memslots.create({ gpa: 0x10_0000, mapping: lazy })
    parentPort.postMessage('ready')
  }
} else {
  const vm = Kvm.open().createVm()
  const guest = Guest.create(vm)
  const worker = new Worker(new URL(import.meta.url), { workerData: vm.share() })
  await new Promise((resolve) => worker.once('message', resolve))
  console.log(guest.read(0x10_0000).value)
  await exitOf(worker)
  await Promise.all(Array.from({ length: 24 }, () => exitOf(new Worker(new URL(import.meta.url), { workerData: 0 }))))
  console.log(guest.read(0x10_2000).value)
  process.exit(0)
}
