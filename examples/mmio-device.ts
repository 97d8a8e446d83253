// A device with one register, at an address without a memslot. Each access is an exit, which is answered in place.
import { Kvm, longModeTablesSize, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

const counterRegister = 0x8000_0000

using kvm = Kvm.open()
using vm = kvm.createVm()
using ram = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: ram })
const code = longModeTablesSize()
// The guest adds 5 to the counter twice, and keeps the value that the counter then has.
const source = `
    mov $${counterRegister}, %ebx
    movl $5, (%rbx)
    movl $5, (%rbx)
    mov (%rbx), %eax
    out %al, $0x10
`
ram.write(code, assemble(source, { mode: 'long', at: code }))
using vcpu = vm.createVcpu().enter('long', { ip: code, ring: 3, tables: 0 })

let counter = 0
for (;;) {
  const exit = vcpu.run({ timeoutMs: 1000 })
  if (exit.reason === 'io-out') break
  if (exit.reason !== 'mmio' || exit.gpa !== counterRegister) throw new Error(`the guest left with ${exit.reason}`)
  if (exit.isWrite) counter += exit.value
  else exit.value = counter
  console.log(`${exit.isWrite ? 'write' : 'read'} of the register at 0x${exit.gpa.toString(16)}: counter ${counter}`)
}
console.log(`the guest saw ${vcpu.registers.get().rax}`)
