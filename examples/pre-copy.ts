// The first way to migrate a live VM. While the guest goes on writing its memory, copy the changed pages round by round until few are left. Then stop
// the guest, copy the rest, and go on from the copy.
import { Kvm, longModeTablesSize, Mapping, MiB, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

const base = 0x4000_0000
const size = 8 * MiB
const enough = 16
const pageSize = 4096

// At CPL 3 the guest adds one to each of the first 64 words, a page apart, and after each round to one word further up.
const code = `
start:
    mov $64, %ecx
    mov %rdi, %rbx
1:  incq (%rbx)
    add $${pageSize}, %rbx
    loop 1b
    mov %rsi, %rax
    and $0x3ff, %eax
    shl $12, %rax
    incq 0x100000(%rdi, %rax)
    inc %rsi
    jmp start
`

using kvm = Kvm.open()
const memory = Mapping.anonymous(size)
const system = Mapping.anonymous(64 * 1024)
const ip = base + longModeTablesSize()
system.write(longModeTablesSize(), assemble(code, { mode: 'long', at: ip }))

function machine(ram: Mapping): Vm {
  const vm = kvm.createVm()
  vm.memslots.create({ gpa: 0, mapping: ram })
  vm.memslots.create({ gpa: base, mapping: system })
  return vm
}

using source = machine(memory)
using vcpu = source.createVcpu().enter('long', { ip, ring: 3, tables: base })
const copy = Mapping.anonymous(size)
using log = source.dirtyLog()

/** Copies the pages that changed since the last call, and returns how many. */
function copyDirty(): number {
  const ranges = log.collect().filter(({ gpa }) => gpa < size)
  for (const range of ranges) copy.write(range.gpa, source.memory.read(range.gpa, range.size))
  return ranges.reduce((pages, range) => pages + range.size / pageSize, 0)
}

// The first round copies all of memory. The guest runs for a shorter time in each round, as if a migration slowed it down.
let milliseconds = 16
for (let left = copyDirty(); left > enough && milliseconds > 0.01; left = copyDirty()) {
  vcpu.run({ timeoutMs: milliseconds })
  milliseconds /= 2
}
copyDirty()
const same = Buffer.compare(copy.read(0, size), source.memory.read(0, size)) === 0
console.log(`the copy ${same ? 'equals' : 'differs from'} the memory`)

// The second machine goes on where the first one stopped.
using target = machine(copy)
using successor = target.createVcpu().enter('long', { ip, ring: 3, tables: base })
successor.registers.set(vcpu.registers.get())
const before = target.memory.read(0, 8)
successor.run({ timeoutMs: 50 })
const moved = Buffer.from(target.memory.read(0, 8)).readBigUInt64LE() > Buffer.from(before).readBigUInt64LE()
console.log(`the guest ${moved ? 'goes on' : 'stands still'} in the copy`)
