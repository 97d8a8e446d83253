/** The memory of a VM, by the addresses that its guest uses. */
import { inspect } from 'node:util'
import type { Gpa } from '../../abi/addresses.js'
import { checkAddress, checkBytes, checkInteger, hex } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { zeroed } from '../../abi/exhausted.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Handle } from '../../abi/ioctls.js'
import type { Memslot } from '../../memory/memslot.js'
import type { Memslots } from '../../memory/memslots.js'

/** @internal */
export let makeGuestMemory: (handle: Handle, memslots: Memslots) => GuestMemory

/**
 * The memory behind the memslots of a VM, by guest-physical address: {@link Vm.memory}.
 * @example
 * vm.memslots.create({ gpa: 0, mapping })
 * vm.memory.write(0x1000, new Uint8Array([0xf4]))
 * vm.memory.read(0x1000, 1)   // Uint8Array [ 0xf4 ]
 */
export class GuestMemory {
  readonly #handle: Handle
  readonly #memslots: Memslots

  static {
    makeGuestMemory = (...given) => new GuestMemory(ours, ...given)
  }

  private constructor(key: symbol, handle: Handle, memslots: Memslots) {
    checkOurs(key, 'a GuestMemory', 'createVm() of a Kvm')
    this.#handle = handle
    this.#memslots = memslots
  }

  /**
   * Returns a copy of guest memory, which may span memslots.
   * @param length the number of bytes
   * @throws KvmError `no-memslot` if no slot covers an address, `memory` if the host memory behind one cannot be read
   */
  read(gpa: Gpa, length: number): Uint8Array {
    const bytes = zeroed(checkInteger('length', length, 0, 2 ** 32))
    this.#eachPiece(gpa, length, (slot, offset, from, size) => slot.mapping.readInto(offset, bytes.subarray(from, from + size)))
    return bytes
  }

  /**
   * Copies bytes into guest memory, which may span memslots. Nothing is written unless memslots cover all of it.
   * @throws KvmError `no-memslot`, `memory`
   */
  write(gpa: Gpa, bytes: Uint8Array): void {
    const { byteLength } = checkBytes('bytes', bytes)
    this.#eachPiece(gpa, byteLength, () => {})
    this.#eachPiece(gpa, byteLength, (slot, offset, from, size) => slot.mapping.write(offset, bytes.subarray(from, from + size)))
  }

  #eachPiece(gpa: Gpa, length: number, visit: (slot: Memslot, offset: number, from: number, size: number) => void): void {
    this.#handle.checkOpen()
    checkAddress('gpa', gpa)
    for (let done = 0; done < length; ) {
      const slot = this.#memslots.lookup(gpa + done)
      if (!slot) throw new KvmError('no-memslot', `no memslot at gpa ${hex(gpa + done)}, so there is nothing to read or write`, { gpa: gpa + done })
      const within = gpa + done - slot.gpa
      const size = Math.min(length - done, slot.size - within)
      visit(slot, slot.offset + within, done, size)
      done += size
    }
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return this.#handle.shown('GuestMemory')
  }
}
