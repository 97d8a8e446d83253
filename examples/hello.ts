// The smallest guest that says something: 16-bit code that writes to one port.
import { Kvm, Mapping, MiB } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
using ram = Mapping.anonymous(2 * MiB)
vm.memslots.create({ gpa: 0, mapping: ram })
const source = `
    mov $0x3f8, %dx
    mov $text, %si
    cld
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  hlt
text: .asciz "Hello from a guest in real mode.\\n"
`
ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
using vcpu = vm.createVcpu().enter('real', { ip: 0x1000 })

for (;;) {
  const exit = vcpu.run({ timeoutMs: 1000 })
  if (exit.reason === 'hlt') break
  if (exit.reason !== 'io-out' || exit.port !== 0x3f8) throw new Error(`the guest left with ${exit.reason}`)
  process.stdout.write(exit.data)
}
