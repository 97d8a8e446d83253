// The second way to migrate a live VM. The guest goes on at its new place at once, and each page follows when the guest first touches it there. The
// vCPU runs on a thread of its own.
import { Kvm, longModeTablesSize, Mapping, MiB, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

const base = 0x4000_0000
const size = 4 * MiB
const pageSize = 4096
const pages = size / pageSize

// At CPL 3 the guest adds up the first word of each page, reports the sum, and goes through the pages again.
const code = `
start:
    xor %eax, %eax
    mov %rdi, %rbx
    mov $${pages}, %ecx
1:  add (%rbx), %rax
    add $${pageSize}, %rbx
    loop 1b
    out %eax, $0x10
    jmp start
`

using kvm = Kvm.open()
const system = Mapping.anonymous(64 * 1024)
const ip = base + longModeTablesSize()
system.write(longModeTablesSize(), assemble(code, { mode: 'long', at: ip }))

function machine(ram: Mapping): Vm {
  const vm = kvm.createVm()
  vm.memslots.create({ gpa: 0, mapping: ram })
  vm.memslots.create({ gpa: base, mapping: system })
  return vm
}
const sumOf = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset).getUint32(0, true)

const memory = Mapping.anonymous(size)
for (let page = 0; page < pages; page++) memory.write(page * pageSize, new Uint8Array([page % 251]))
using source = machine(memory)
using vcpu = source.createVcpu().enter('long', { ip, ring: 3, tables: base })
const first = vcpu.run({ timeoutMs: 60_000 })
const expected = first.reason === 'io-out' ? sumOf(first.data) : Number.NaN
console.log(`at the old place the sum is ${expected}`)

// The registers go first. Memory follows on demand.
const arrived = Mapping.anonymous(size)
using paging = arrived.onMissing(async ({ offset }) => memory.read(offset, pageSize))
using target = machine(arrived)
using successor = target.createVcpu().enter('long', { ip, ring: 3, tables: base })
successor.registers.set(vcpu.registers.get())
const sums: number[] = []
await successor.start({
  'io-out': ({ data }) => {
    sums.push(sumOf(data))
    if (sums.length === 2) void successor.stop()
  }
})
console.log(`at the new place it is ${sums.join(', then ')}: ${sums.every((sum) => sum === expected) ? 'the same' : 'another'}`)
console.log(`${paging.served} of ${pages} pages followed, each once`)
