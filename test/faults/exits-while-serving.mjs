// This thread runs a vCPU that writes a growing number to a device. Meanwhile it serves the pages for which a Worker's vCPU waits, and each request
// for a page interrupts the run. It counts the exits: at least as many as the argument says.
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { Kvm, Mapping, Vm } from '../../dist/lib/index.js'
import { assemble } from '../../dist/lib/testing/index.js'

if (!isMainThread) {
  const vcpu = Vm.attach(workerData).vcpu(1)
  for (;;) {
    const { reason } = vcpu.run({ timeoutMs: 60_000 })
    if (reason !== 'io-out') console.log('the Worker got', reason)
  }
}

const vm = Kvm.open().createVm()
const ram = Mapping.anonymous(65536)
const lazy = Mapping.anonymous(0x8000 * 16)
vm.memslots.create({ gpa: 0, mapping: ram, size: 0x8000 })
vm.memslots.create({ gpa: 0x8_0000, mapping: lazy })
ram.write(0, assemble('mov $0x1000, %ax; mov %ax, %ds; 1: inc %bx; mov %bx, 0; jmp 1b', { mode: 'real', at: 0 }))
// The guest touches one page after the other, then begins again.
const touch = '1: mov $0x8000, %ax; 2: mov %ax, %ds; mov 0, %bl; out %al, $0x10; add $0x100, %ax; jnz 2b; jmp 1b'
ram.write(0x200, assemble(touch, { mode: 'real', at: 0x200 }))
const paging = lazy.onMissing(() => new Uint8Array(4096).fill(7))
const vcpu = vm.createVcpu().enter('real', { ip: 0 })
vm.createVcpu().enter('real', { ip: 0x200 })
const worker = new Worker(new URL(import.meta.url), { workerData: vm.share() })
await new Promise((resolve) => worker.once('online', resolve))

const seen = { exits: 0, twice: 0, lost: 0, other: 0 }
const wanted = Number(process.argv[2])
// The Worker may come late.
for (let last; seen.exits < wanted || paging.served < 32; ) {
  const exit = vcpu.run({ timeoutMs: 60_000 })
  if (exit.reason !== 'mmio') {
    seen.other++
    continue
  }
  const value = exit.data[0] | (exit.data[1] << 8)
  if (last === value) seen.twice++
  else if (last !== undefined && value !== ((last + 1) & 0xffff)) seen.lost++
  last = value
  seen.exits++
  // After this the Worker's next touches are faults again.
  if (seen.exits % 5000 === 0) lazy.advise('dontneed')
}
console.log(JSON.stringify({ ...seen, served: paging.served }))
process.exit(0)
