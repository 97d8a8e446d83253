// A machine with a serial console and a power switch. It greets, echoes a line in capitals, and switches itself off.
import { type Exit, Kvm, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

const input = new TextEncoder().encode(`${process.argv[2] ?? 'hello, machine'}\n`)
const serialData = 0x3f8
const serialStatus = 0x3fd
const powerPort = 0x604

const firmware = `
    mov $greeting, %si
    cld
1:  lodsb
    test %al, %al
    jz 2f
    mov $${serialData}, %dx
    out %al, %dx
    jmp 1b
2:  mov $${serialStatus}, %dx
    in %dx, %al
    test $1, %al
    jz 4f
    mov $${serialData}, %dx
    in %dx, %al
    cmp $'a', %al
    jb 3f
    cmp $'z', %al
    ja 3f
    sub $32, %al
3:  out %al, %dx
    jmp 2b
4:  mov $${powerPort}, %dx
    mov $0x2000, %ax
    out %ax, %dx
greeting: .asciz "minimal-vmm: ready\\n"
`

/** Answers one exit. Returns false if the guest switched the machine off. */
function serve(exit: Exit, console: { next: number }): boolean {
  if (exit.reason === 'io-out' && exit.port === serialData) process.stdout.write(exit.data)
  else if (exit.reason === 'io-in' && exit.port === serialStatus) exit.data[0] = console.next < input.length ? 0x21 : 0x20
  else if (exit.reason === 'io-in' && exit.port === serialData) exit.data[0] = input[console.next++] ?? 0
  else if (exit.reason === 'io-out' && exit.port === powerPort) return false
  else throw new Error(`the guest left with ${exit.reason}`)
  return true
}

using kvm = Kvm.open()
using vm = kvm.createVm()
using ram = Mapping.anonymous(MiB)
vm.memslots.create({ gpa: 0, mapping: ram })
ram.write(0x7c00, assemble(firmware, { mode: 'real', at: 0x7c00 }))
using vcpu = vm.createVcpu().enter('real', { ip: 0x7c00 })
const state = { next: 0 }
while (serve(vcpu.run({ timeoutMs: 1000 }), state));
console.log('minimal-vmm: off')
