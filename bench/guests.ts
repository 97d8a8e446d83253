import { longModeTablesSize, Mapping, MiB, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

/** This is clear of the addresses that tests map; the tables of long mode reach 4 GiB. */
const base = 0xc000_0000

/**
 * Returns vCPUs in long mode at CPL 3, where every lane runs natively. All programs of a VM lie in one slot, whose page tables their vCPUs share.
 * Each program begins with the given registers.
 */
export function programs(vm: Vm, sources: readonly { source: string; registers?: Record<string, bigint> }[]): Vcpu[] {
  const mapping = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: base, mapping })
  return sources.map(({ source, registers = {} }, index) => {
    const offset = longModeTablesSize() + index * 4096
    mapping.write(offset, assemble(source, { mode: 'long', at: base + offset }))
    const vcpu = vm.createVcpu().enter('long', { ip: base + offset, ring: 3, tables: base })
    vcpu.registers.set(registers)
    return vcpu
  })
}

/** A vCPU in real mode that writes port 0x10 for ever. This is the cheapest exit, so the cost of handling it shows most. */
export function writesAPort(vm: Vm): Vcpu {
  const ram = Mapping.anonymous(2 * MiB)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0x1000, assemble('1: out %al, $0x10; jmp 1b', { mode: 'real', at: 0x1000 }))
  return vm.createVcpu().enter('real', { ip: 0x1000 })
}

/** Reads the word at rdi for ever, and writes any word that is neither rbx nor rdx to port 0x11. r9 counts the readings. */
export const reader = `
  1: mov (%rdi), %rax; inc %r9
     cmp %rbx, %rax; je 1b
     cmp %rdx, %rax; je 1b
     out %eax, $0x11; jmp 1b`

/** Like {@link reader}, but reads the words at r8, r8 + r10 and so on up to rsi. */
export const sweeper = `
  1: mov %r8, %rdi
  2: mov (%rdi), %rax; inc %r9
     cmp %rbx, %rax; je 3f
     cmp %rdx, %rax; je 3f
     out %eax, $0x11
  3: add %r10, %rdi; cmp %rsi, %rdi; jb 2b
     jmp 1b`

/** Writes rbx, which counts up, to the first word of each page from r8 to rsi, for ever. */
export const writer = `
  1: mov %r8, %rdi
  2: mov %rbx, (%rdi); add $4096, %rdi; cmp %rsi, %rdi; jb 2b
     inc %rbx; jmp 1b`
