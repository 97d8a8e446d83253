// Two vCPUs on threads of their own count in one word of guest memory with a locked instruction, while the timers of this thread go on.
import { KiB, Kvm, longModeTablesSize, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
using ram = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: ram })

const at = longModeTablesSize()
const counter = 1 * MiB
const each = 2_000_000
ram.write(at, assemble(`mov $${each}, %ecx; 1: lock incq (%rdi); loop 1b; out %al, $0x10; 2: jmp 2b`, { mode: 'long', at }))

const vcpus = [0, 1].map(() => {
  const vcpu = vm.createVcpu().enter('long', { ip: at, ring: 3, tables: 0 })
  vcpu.registers.set({ rdi: BigInt(counter) })
  return vcpu
})

let ticks = 0
const timer = setInterval(() => ticks++, 1)
const done = vcpus.map((vcpu) => vcpu.start({ 'io-out': () => void vcpu.stop() }))
console.log(`states: ${vcpus.map(({ state }) => state).join(', ')}`)
await Promise.all(done)
clearInterval(timer)

const [count] = new BigUint64Array(ram.read(counter, 8).buffer)
console.log(`two vCPUs counted to ${count}, in ${ram.size / KiB} KiB they share`)
console.log(`the event loop's timers came meanwhile: ${ticks > 0 ? 'yes' : 'no'}`)
