// 64-bit code at CPL 3. It runs natively on hardware and on a software KVM, and every page that it touches goes through the second stage.
import { Kvm, longModeTablesSize, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
using ram = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: ram })

const tables = 0x10_0000
const code = tables + longModeTablesSize()
const source = `
    mov $90, %ecx
    xor %eax, %eax
    mov $1, %ebx
1:  xadd %rax, %rbx
    loop 1b
    out %al, $0x10
`
ram.write(code, assemble(source, { mode: 'long', at: code }))
using vcpu = vm.createVcpu().enter('long', { ip: code, ring: 3, tables })

const exit = vcpu.run({ timeoutMs: 1000 })
if (exit.reason !== 'io-out') throw new Error(`the guest left with ${exit.reason}`)
console.log(`Fibonacci number 90 is ${vcpu.registers.get().rax}, says the guest at CPL 3.`)
