// A timer in the kernel interrupts a guest that sleeps. It needs interrupt controllers, the interval timer, and a handler in the guest's vector
// table.
import { Kvm, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

const ticks = 5
const tickPort = 0x80
const timerVector = 0x20
const hertz = 100

using kvm = Kvm.open()
using vm = kvm.createVm()
vm.interrupts.createIrqchip()
vm.interrupts.createPit()
using ram = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: ram })

// The first controller uses vectors from 0x20 on and lets only the timer through. The timer's channel 0 counts down at 1193182 Hz.
const firmware = `
    mov $0x11, %al; out %al, $0x20
    mov $${timerVector}, %al; out %al, $0x21
    mov $4, %al; out %al, $0x21
    mov $1, %al; out %al, $0x21
    mov $0xfe, %al; out %al, $0x21
    mov $0x34, %al; out %al, $0x43
    mov $${Math.round(1193182 / hertz) & 0xff}, %al; out %al, $0x40
    mov $${Math.round(1193182 / hertz) >> 8}, %al; out %al, $0x40
    xor %bx, %bx
    sti
sleep:
    hlt
    jmp sleep
`
const handler = `
    inc %bx
    mov %bl, %al
    out %al, $${tickPort}
    mov $0x20, %al
    out %al, $0x20
    iret
`
ram.write(0x1000, assemble(firmware, { mode: 'real', at: 0x1000 }))
ram.write(0x2000, assemble(handler, { mode: 'real', at: 0x2000 }))
// In real mode the vector table is at 0. Each entry is an offset, then a segment.
ram.write(timerVector * 4, new Uint8Array(new Uint16Array([0x2000, 0]).buffer))

using vcpu = vm.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
for (let tick = 0; tick < ticks; ) {
  // The guest's HLT is no exit, because KVM waits for the timer inside run().
  const exit = vcpu.run({ timeoutMs: 10_000 })
  if (exit.reason !== 'io-out' || exit.port !== tickPort) throw new Error(`the guest left with ${exit.reason}`)
  tick = exit.data[0] ?? 0
  console.log(`tick ${tick}`)
}
