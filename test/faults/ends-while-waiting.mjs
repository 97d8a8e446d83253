// A started vCPU waits for a page that its event loop's thread serves. It waits in an access that KVM itself makes, and that heeds no signal. Then
// that thread ends the vCPU, in the way that the argument names.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'
import { assemble } from '../../dist/lib/testing/index.js'

const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

/** A vCPU that sends a byte of a missing page to a port, by a string instruction, which KVM emulates everywhere. */
function waitingVcpu(onMissing) {
  const vm = Kvm.open().createVm()
  const ram = Mapping.anonymous(65536)
  const lazy = Mapping.anonymous(65536)
  ram.write(0, assemble('mov $0x8000, %si; mov $0x10, %dx; cld; outsb; hlt', { mode: 'real', at: 0 }))
  vm.memslots.create({ gpa: 0, mapping: ram, size: 0x8000 })
  vm.memslots.create({ gpa: 0x8000, mapping: lazy, size: 0x8000 })
  const vcpu = vm.createVcpu().enter('real', { ip: 0 })
  const paging = lazy.onMissing((fault) => onMissing?.({ vm, vcpu, paging }, fault) ?? new Uint8Array(4096).fill(7))
  return { vm, vcpu, paging }
}

const waysToEnd = {
  'vcpu.close': ({ vcpu }) => vcpu.close(),
  'vm.close': ({ vm }) => vm.close(),
  'process.exit': () => {
    console.log('over')
    process.exit(0)
  }
}

async function endHere(how) {
  const all = waitingVcpu()
  const end = all.vcpu.start({ 'io-out': () => {} })
  pause(100)
  waysToEnd[how](all)
  console.log(how, (await end).reason)
}

async function endInHandler(how) {
  const all = waitingVcpu((all) => void waysToEnd[how](all))
  const end = all.vcpu.start({ 'io-out': () => {} })
  console.log(how, 'in the handler', (await end).reason)
}

/** Ends a Worker that does not come to serve, or the process while a Worker runs a vCPU that waits for this thread. */
async function endWorker(role) {
  const token = role === 'runs' ? waitingVcpu().vm.share() : undefined
  const worker = new Worker(new URL(import.meta.url), { workerData: { role, token } })
  await new Promise((resolve) => worker.once('message', resolve))
  pause(100)
  if (role === 'runs') waysToEnd['process.exit']()
  await worker.terminate()
  console.log('terminated')
}

function inWorker({ role, token }) {
  if (role === 'runs') {
    const vcpu = Vm.attach(token).vcpu(0)
    parentPort.postMessage('')
    vcpu.run()
  } else {
    waitingVcpu().vcpu.start({})
    parentPort.postMessage('')
    for (;;);
  }
}

const [what, how] = process.argv.slice(2)
if (!isMainThread) inWorker(workerData)
else if (what === 'here') await endHere(how)
else if (what === 'handler') await endInHandler(how)
else await endWorker(how)
