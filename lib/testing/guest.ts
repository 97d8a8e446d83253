/** The guest of the thread. It reads and writes at given addresses, and reports when it is done. */

import { inspect } from 'node:util'
import type { Gpa } from '../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOneOf, checkOptions, hex, KiB, pageSize } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { checkOurs, ours } from '../abi/internal.js'
import { shown } from '../abi/text.js'
import type { Exit } from '../kvm/vcpu/exits.js'
import { longModeTablesSize } from '../kvm/vcpu/modes.js'
import type { Vcpu } from '../kvm/vcpu/vcpu.js'
import { Vm } from '../kvm/vm/vm.js'
import { Mapping } from '../memory/mapping.js'

/** The result of a guest's access. */
export type Access =
  | { reason: 'done'; value: bigint }
  /** No memslot is there, or the access wrote to a READONLY one. The exit was answered with zeros. */
  | { reason: 'mmio'; gpa: Gpa; isWrite: boolean; size: number }
  /** The guest ended in another way. */
  | { reason: 'failed'; exit: Exit }

/** @internal Describes an access: `read 0x1111`, or how it ended. */
export const describeAccess = (access: Access): string =>
  access.reason === 'done'
    ? `read ${hex(access.value)}`
    : access.reason === 'mmio'
      ? `MMIO exit at gpa ${hex(access.gpa)}`
      : `${access.exit.reason} exit`

/** A place away from the low addresses that experiments use, and within the 4 GiB that the tables of long mode map. */
const defaultBase = 0x4000_0000
const donePort = 0x10
const timeoutMs = 10_000

// This is machine code rather than assembler source, so that a host without GNU as can run a guest. Each part ends with `out %al, $0x10`.
const done = [0xe6, donePort, 0xeb, 0xfe]
const routines = {
  read: [0x48, 0x8b, 0x07, ...done], // mov (%rdi), %rax
  write: [0x48, 0x89, 0x37, ...done], // mov %rsi, (%rdi)
  // 1: mov (%rdi), %al; add $4096, %rdi; dec %rcx; jnz 1b
  touchRead: [0x8a, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf2, ...done],
  // 1: mov %sil, (%rdi); add $4096, %rdi; dec %rcx; jnz 1b
  touchWrite: [0x40, 0x88, 0x37, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf1, ...done]
}
type Routine = keyof typeof routines
const routineSpace = 64

/**
 * A vCPU in long mode at CPL 3. Hardware runs such code natively, and so does software that emulates the processor, so each access goes through the
 * second stage.
 * @example
 * const guest = Guest.create(vm)
 * vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
 * guest.write(0xa000, 42n)
 * guest.read(0xa000)   // { reason: 'done', value: 42n }
 */
export class Guest {
  readonly vm: Vm
  readonly vcpu: Vcpu
  readonly #code: number

  private constructor(key: symbol, vm: Vm, vcpu: Vcpu, code: number) {
    checkOurs(key, 'a Guest', 'Guest.create()')
    this.vm = vm
    this.vcpu = vcpu
    this.#code = code
  }

  /**
   * Adds a vCPU to the VM, and a memslot of 64 KiB for its code and tables.
   * @param options `base`: the GPA of that memslot, page-aligned, below 4 GiB
   */
  static create(vm: Vm, options: { base?: number } = {}): Guest {
    if (!(vm instanceof Vm)) throw argumentError('vm', vm, 'a Vm')
    const { base = defaultBase } = checkOptions('options', options, ['base'])
    checkAddress('base', base, pageSize)
    const mapping = Mapping.anonymous(64 * KiB)
    const code = base + longModeTablesSize()
    Object.values(routines).forEach((routine, index) => mapping.write(longModeTablesSize() + index * routineSpace, new Uint8Array(routine)))
    vm.memslots.create({ gpa: base, mapping })
    return new Guest(ours, vm, vm.createVcpu().enter('long', { ip: code, ring: 3, tables: base }), code)
  }

  /** Makes the guest read the 64-bit word at `gpa`. */
  read(gpa: Gpa): Access {
    return this.#perform('read', { rdi: BigInt(checkAddress('gpa', gpa)) })
  }

  /** Makes the guest write a 64-bit word to `gpa`. */
  write(gpa: Gpa, value: bigint): Access {
    if (typeof value !== 'bigint') throw argumentError('value', value, 'a bigint')
    return this.#perform('write', { rdi: BigInt(checkAddress('gpa', gpa)), rsi: BigInt.asUintN(64, value) })
  }

  /** Makes the guest access one byte of each page from `gpa` on. Writes put `value` there. */
  touch(gpa: Gpa, pages: number, how: 'read' | 'write' = 'read', value = 0): Access {
    checkOneOf('how', how, ['read', 'write'])
    checkInteger('pages', pages, 1)
    return this.#perform(how === 'read' ? 'touchRead' : 'touchWrite', {
      rdi: BigInt(checkAddress('gpa', gpa)),
      rcx: BigInt(pages),
      rsi: BigInt(checkInteger('value', value, 0, 255))
    })
  }

  #perform(routine: Routine, registers: { rdi: bigint; rsi?: bigint; rcx?: bigint }): Access {
    const rip = BigInt(this.#code + Object.keys(routines).indexOf(routine) * routineSpace)
    this.vcpu.registers.set({ ...registers, rip, rflags: 0x3202n })
    let mmio: Access | undefined
    for (;;) {
      const exit = this.vcpu.run({ timeoutMs })
      if (exit.reason === 'io-out' && exit.port === donePort) return mmio ?? { reason: 'done', value: this.vcpu.registers.get().rax }
      if (exit.reason === 'timeout') throw new KvmError('busy', `the guest did not finish at ${hex(registers.rdi)} within ${timeoutMs} ms`)
      if (exit.reason !== 'mmio') return { reason: 'failed', exit: structuredClone(exit) }
      const { gpa, isWrite, size } = exit
      mmio ??= { reason: 'mmio', gpa, isWrite, size }
    }
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('Guest', { code: hex(this.#code), vcpu: this.vcpu.id, closed: this.vcpu.closed })
  }
}
