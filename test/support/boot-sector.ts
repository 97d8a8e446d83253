import { assemble } from 'node-kvm/testing'

/** Where the guest's program writes one byte in each page. */
export const touched = { gpa: 0x40_0000, pages: 2048 }

// The program goes straight from real mode to long mode (Intel SDM volume 3, 10.8.5), whose tables map the first GiB to itself; then to CPL 3, where
// even a host without VT-x and SVM runs it natively, so that its accesses go through the second stage.
const source = `
.code16
  cli
  xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp
  mov $0x1000, %ax; mov %ax, %es; xor %di, %di; xor %ax, %ax; mov $0x1800, %cx; rep stosw
  movl $0x11007, %es:0
  movl $0x12007, %es:0x1000
  mov $0x2000, %di; mov $0x87, %eax; mov $512, %cx
1: mov %eax, %es:(%di); add $8, %di; add $0x200000, %eax; loop 1b
  mov $0x20, %eax; mov %eax, %cr4
  mov $0x10000, %eax; mov %eax, %cr3
  mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr
  lgdt gdtr
  mov $0x80000001, %eax; mov %eax, %cr0
  ljmp $8, $long
.code64
long:
  mov $0x13, %eax
  push %rax; push $0x7000; push $0x3002; push $0x1b; push $user
  iretq
user:
  mov $${touched.gpa}, %rdi; mov $${touched.pages}, %rcx
1: movb $1, (%rdi); add $4096, %rdi; dec %rcx; jnz 1b
  mov $0x402, %dx
  mov $'+', %al; out %al, %dx
2: pause; jmp 2b
.balign 8
gdt: .quad 0, 0x00209a0000000000, 0x0000f20000000000, 0x0020fa0000000000
gdtr: .word 31; .long gdt
`

/** A disk whose only program writes to {@link touched} and writes + to the firmware's debug port. */
export function bootSector(): Uint8Array {
  const sector = new Uint8Array(512)
  sector.set(assemble(source, { mode: 'long', at: 0x7c00 }))
  sector.set([0x55, 0xaa], 510)
  return sector
}
