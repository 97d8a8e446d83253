// A guest writes a growing number to a device, while another process sends the signal by which the library interrupts its own runs.
import { spawn } from 'node:child_process'
import { native } from '../../dist/lib/abi/native.js'
import { Kvm, Mapping } from '../../dist/lib/index.js'
import { assemble } from '../../dist/lib/testing/index.js'

const vm = Kvm.open().createVm()
const ram = Mapping.anonymous(32768)
vm.memslots.create({ gpa: 0, mapping: ram })
ram.write(0, assemble('mov $0x1000, %ax; mov %ax, %ds; 1: inc %bx; mov %bx, 0; jmp 1b', { mode: 'real', at: 0 }))
const vcpu = vm.createVcpu().enter('real', { ip: 0 })
const signals = spawn('sh', ['-c', `while env kill -q 1 -s ${native.kickSignal()} ${process.pid}; do :; done`], { stdio: 'ignore' })
const end = Date.now() + Number(process.argv[2]) * 1000
const seen = { exits: 0, wrong: 0, other: 0 }
for (let last; Date.now() < end; ) {
  const exit = vcpu.run({ timeoutMs: 10_000 })
  if (exit.reason !== 'mmio') {
    seen.other++
    continue
  }
  const value = exit.data[0] | (exit.data[1] << 8)
  if (last !== undefined && value !== ((last + 1) & 0xffff)) seen.wrong++
  last = value
  seen.exits++
}
signals.kill()
console.log(JSON.stringify(seen))
