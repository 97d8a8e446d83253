/** Registers in the run page: KVM_CAP_SYNC_REGS (api.rst, "kvm_valid_regs" and "kvm_dirty_regs"). */
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

/** Bits of the two masks. */
export const syncBits = { registers: KVM_SYNC_X86_REGS, specialRegisters: KVM_SYNC_X86_SREGS, events: KVM_SYNC_X86_EVENTS } as const

/** Where in the run page one of the parts lies. */
const offsetOf = (part: keyof typeof kvm_sync_regs.fields) => kvm_run.offsets.s + kvm_sync_regs.offsets[part]

/** @internal */
export let makeSyncRegisters: (vcpu: NativeVcpu, handle: VcpuHandle, runPageSize: number) => SyncRegisters

/**
 * Saves the ioctls around each run: KVM copies the asked-for registers out at each exit, and the dirty ones in at each entry.
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
    // ERANGE, of the add-on: kernels differ in how long their run page is.
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

  /** Which registers each later exit copies out. A bit that KVM does not know makes run() fail with EINVAL. */
  ask(bits: number): void {
    this.#mask(kvm_run.offsets.kvm_valid_regs, 'bits', bits)
  }
  /** Which registers the next run copies in; KVM clears the mask. */
  markDirty(bits: number): void {
    this.#mask(kvm_run.offsets.kvm_dirty_regs, 'bits', bits)
  }

  /** The general-purpose registers as the last exit left them; stale unless asked for. Assign to change, then markDirty. */
  get registers(): Registers {
    const value = new Registers()
    this.#check(this.#native.readRunPage(offsetOf('regs'), value.bytes))
    return value
  }
  /** Writes them into the run page; they count once marked dirty. */
  set registers(value: Registers) {
    if (!(value instanceof Registers)) throw argumentError('registers', value, 'an instance of Registers')
    this.#write(offsetOf('regs'), new Registers(value))
  }
  /** Segments and control registers as the last exit left them; stale unless asked for. */
  get specialRegisters(): SpecialRegisters {
    const value = new SpecialRegisters()
    this.#check(this.#native.readRunPage(offsetOf('sregs'), value.bytes))
    return value
  }
  /** Writes them into the run page; they count once marked dirty. */
  set specialRegisters(value: SpecialRegisters) {
    if (!(value instanceof SpecialRegisters)) throw argumentError('specialRegisters', value, 'an instance of SpecialRegisters')
    this.#write(offsetOf('sregs'), new SpecialRegisters(value))
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('SyncRegisters')
  }
}
