/**
 * A program for the guest that no busybox has: with `reseed </dev/urandom` the kernel makes its key for random numbers anew from its pool at once
 * (RNDRESEEDCRNG, <linux/random.h>). Without it, bytes that are written to /dev/urandom take effect only seconds later.
 */
const base = 0x400000n
const headers = 64 + 56

const code = Buffer.from([
  ...[0xb8, 0x10, 0, 0, 0], // mov eax, 16      ioctl
  ...[0x31, 0xff], //          xor edi, edi     standard input
  ...[0xbe, 0x07, 0x52, 0, 0], // mov esi, 0x5207  _IO('R', 0x07)
  ...[0x31, 0xd2], //          xor edx, edx
  ...[0x0f, 0x05], //          syscall
  ...[0x89, 0xc7], //          mov edi, eax     0, or an error for the shell to see
  ...[0xb8, 0x3c, 0, 0, 0], // mov eax, 60      exit
  ...[0x0f, 0x05] //           syscall
])

/** An ELF file of one segment: elf(5). */
export function reseedProgram(): Buffer {
  const file = Buffer.alloc(headers)
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  file.writeUInt16LE(2, 16) // e_type: ET_EXEC
  file.writeUInt16LE(62, 18) // e_machine: EM_X86_64
  file.writeUInt32LE(1, 20) // e_version
  file.writeBigUInt64LE(base + BigInt(headers), 24) // e_entry
  file.writeBigUInt64LE(64n, 32) // e_phoff
  file.writeUInt16LE(64, 52) // e_ehsize
  file.writeUInt16LE(56, 54) // e_phentsize
  file.writeUInt16LE(1, 56) // e_phnum
  file.writeUInt32LE(1, 64) // p_type: PT_LOAD
  file.writeUInt32LE(5, 68) // p_flags: read, execute
  file.writeBigUInt64LE(base, 80) // p_vaddr
  file.writeBigUInt64LE(base, 88) // p_paddr
  for (const place of [96, 104]) file.writeBigUInt64LE(BigInt(headers + code.length), place) // p_filesz, p_memsz
  file.writeBigUInt64LE(4096n, 112) // p_align
  return Buffer.concat([file, code])
}
