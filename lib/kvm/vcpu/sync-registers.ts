/** The registers in the run page: KVM_CAP_SYNC_REGS (api.rst, "kvm_valid_regs" and "kvm_dirty_regs"). */
import { inspect } from 'node:util'
import { argumentError, checkInteger } from '../../abi/arguments.js'
import { errnoName, KvmError } from '../../abi/errors.js'
import { KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS } from '../../abi/generated/constants.js'
import { kvm_run, kvm_sync_regs } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { VcpuHandle } from '../../abi/ioctls.js'
import type { NativeVcpu } from '../../abi/native.js'
import type { Struct } from '../../abi/struct.js'
import { Registers, SpecialRegisters } from '../../x86/registers.js'

/** The bits of the two masks. */
export const syncBits = { registers: KVM_SYNC_X86_REGS, specialRegisters: KVM_SYNC_X86_SREGS, events: KVM_SYNC_X86_EVENTS } as const

/** Returns the offset of one of the parts in the run page. */
const offsetOf = (part: keyof typeof kvm_sync_regs.fields) => kvm_run.offsets.s + kvm_sync_regs.offsets[part]

/** @internal */
export let makeSyncRegisters: (vcpu: NativeVcpu, handle: VcpuHandle, runPageSize: number) => SyncRegisters

/**
 * Saves the ioctls around each run. KVM copies the requested registers out at each exit, and the dirty ones in at each entry.
 * @example
 * vcpu.syncRegisters.ask(syncBits.registers)
 * vcpu.run()
 * vcpu.syncRegisters.registers.rip
 */
export class SyncRegisters {
  readonly #native: NativeVcpu
  readonly #handle: VcpuHandle
  readonly #runPageSize: number

  static {
    makeSyncRegisters = (...given) => new SyncRegisters(ours, ...given)
  }

  private constructor(key: symbol, vcpu: NativeVcpu, handle: VcpuHandle, runPageSize: number) {
    checkOurs(key, 'a SyncRegisters', 'createVcpu() of a Vm')
    this.#native = vcpu
    this.#handle = handle
    this.#runPageSize = runPageSize
  }

  #check(result: number): void {
    this.#handle.checkOpen()
    // The add-on gives ERANGE, since kernels differ in the length of the run page.
    if (result < 0)
      throw new KvmError('unavailable', `${this.#handle.name}: the run page of ${this.#runPageSize} bytes has no room for these registers`, {
        errno: errnoName(result)
      })
  }
  #write(offset: number, { bytes }: Struct): void {
    this.#check(this.#native.writeRunPage(offset, bytes))
  }
  #mask(offset: number, name: string, bits: number): void {
    this.#check(this.#native.writeRunPage(offset, new Uint8Array(new BigUint64Array([BigInt(checkInteger(name, bits))]).buffer)))
  }

  /** Chooses the registers that each later exit copies out. A bit that KVM does not know makes run() fail with EINVAL. */
  ask(bits: number): void {
    this.#mask(kvm_run.offsets.kvm_valid_regs, 'bits', bits)
  }
  /** Marks the registers that the next run copies in. KVM clears the mask. */
  markDirty(bits: number): void {
    this.#mask(kvm_run.offsets.kvm_dirty_regs, 'bits', bits)
  }

  /** The general-purpose registers at the last exit; out of date unless ask() requested them. Assign to change them, then call markDirty(). */
  get registers(): Registers {
    const value = new Registers()
    this.#check(this.#native.readRunPage(offsetOf('regs'), value.bytes))
    return value
  }
  /** Writes the registers into the run page. They take effect once marked dirty. */
  set registers(value: Registers) {
    if (!(value instanceof Registers)) throw argumentError('registers', value, 'an instance of Registers')
    this.#write(offsetOf('regs'), new Registers(value))
  }
  /** The segments and control registers at the last exit; out of date unless ask() requested them. */
  get specialRegisters(): SpecialRegisters {
    const value = new SpecialRegisters()
    this.#check(this.#native.readRunPage(offsetOf('sregs'), value.bytes))
    return value
  }
  /** Writes the registers into the run page. They take effect once marked dirty. */
  set specialRegisters(value: SpecialRegisters) {
    if (!(value instanceof SpecialRegisters)) throw argumentError('specialRegisters', value, 'an instance of SpecialRegisters')
    this.#write(offsetOf('sregs'), new SpecialRegisters(value))
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('SyncRegisters')
  }
}
