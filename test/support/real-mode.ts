import { Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

/** A vCPU about to run real-mode code at 0x1000, in memory that ends at `size`. */
export function realMode(vm: Vm, source: string, size = 2 * MiB): Vcpu {
  const ram = Mapping.anonymous(size)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble(source, { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000, sp: 0x8000 })
}
