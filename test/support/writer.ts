import { KiB, longModeTablesSize, Mapping, type Vcpu, type Vm } from 'node-kvm'
import { assemble } from 'node-kvm/testing'

// This is clear of the addresses that Guest uses.
const base = 0x5000_0000
const pageSize = 4 * KiB

/** A guest at CPL 3 that writes 1, 2, 3, ... to the first word of pages that it chooses at random. */
export class Writer {
  readonly vcpu: Vcpu
  readonly gpa: number
  readonly pages: number

  constructor(vm: Vm, gpa: number, pages: number) {
    this.gpa = gpa
    this.pages = pages
    const ip = base + longModeTablesSize()
    const mapping = Mapping.anonymous(64 * KiB)
    vm.memslots.create({ gpa: base, mapping })
    const code = `1: mov %r8, %rax; shl $13, %rax; xor %rax, %r8; mov %r8, %rax; shr $7, %rax; xor %rax, %r8; mov %r8, %rax; shl $17, %rax
      xor %rax, %r8; mov %r8, %rax; xor %edx, %edx; div %r9; shl $12, %rdx; inc %r10; mov %r10, (%rdi, %rdx)
      dec %rcx; jnz 1b; out %al, $0x10; jmp 1b`
    mapping.write(longModeTablesSize(), assemble(code, { mode: 'long', at: ip }))
    this.vcpu = vm.createVcpu().enter('long', { ip, ring: 3, tables: base })
    this.vcpu.registers.set({ rdi: BigInt(gpa), r8: 0x9e37_79b9_7f4a_7c15n, r9: BigInt(pages), r10: 0n })
  }

  /** The number that was written last. */
  get counter(): number {
    return Number(this.vcpu.registers.get().r10)
  }

  /** Lets the guest write so many times, and returns why it came back: `io-out` if it did all. */
  run(writes: number, timeoutMs = 60_000): string {
    this.vcpu.registers.set({ rcx: BigInt(writes) })
    return this.vcpu.run({ timeoutMs }).reason
  }
}

/** The first word of each page. */
export function wordsOf(vm: Vm, gpa: number, pages: number): number[] {
  const bytes = vm.memory.read(gpa, pages * pageSize)
  const view = new DataView(bytes.buffer)
  return Array.from({ length: pages }, (_, page) => Number(view.getBigUint64(page * pageSize, true)))
}
