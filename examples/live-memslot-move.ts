// Memory changes under a guest that never stops reading. During bare moves it sees MMIO for moments; during a transaction it does not.
import { setTimeout as sleep } from 'node:timers/promises'
import { KiB, Kvm, longModeTablesSize, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
using low = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: low })
const at = longModeTablesSize()
// The guest counts its reads in r9. It sends every word that is neither of the two to port 0x11.
const source = '1: mov (%rdi), %rax; inc %r9; cmp %rbx, %rax; je 1b; cmp %rdx, %rax; je 1b; out %al, $0x11; jmp 1b'
low.write(at, assemble(source, { mode: 'long', at }))

const [home, away] = [0x100_0000, 0x200_0000]
const [day, night] = [Mapping.anonymous(4 * KiB), Mapping.anonymous(4 * KiB)]
day.fill(0xdd)
night.fill(0xee)
const one = vm.memslots.create({ gpa: home, mapping: day })
const other = vm.memslots.create({ gpa: away, mapping: night })

const vcpu = vm.createVcpu().enter('long', { ip: at, ring: 3, tables: 0 })
vcpu.registers.set({ rdi: BigInt(home), rbx: 0xdddd_dddd_dddd_ddddn, rdx: 0xeeee_eeee_eeee_eeeen })
const seen = { mmio: 0, wrong: 0 }
const running = vcpu.start({
  mmio: ({ data }) => {
    data.fill(0xdd)
    seen.mmio++
  },
  'io-out': () => void seen.wrong++
})

for (let round = 0; round < 100; round++) {
  vm.memslots.transaction((tx) => {
    tx.move(one, round % 2 ? home : away)
    tx.move(other, round % 2 ? away : home)
  })
  if (round % 10 === 0) await sleep(1)
}
console.log(`100 transactions that swapped two slots: ${seen.mmio} MMIO exits, ${seen.wrong} wrong words`)

for (let round = 0; round < 100; round++) {
  one.move(0x300_0000)
  if (round % 10 === 0) await sleep(1)
  one.move(home)
}
console.log(`100 bare moves away and back: ${seen.mmio > 0 ? 'MMIO exits in the gap' : 'no MMIO exit this time'}, ${seen.wrong} wrong words`)
await vcpu.stop()
await running
console.log(`the guest read all the while: ${vcpu.registers.get().r9 > 0n ? 'yes' : 'no'}`)
