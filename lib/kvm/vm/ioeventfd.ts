/** Guest writes that become events instead of exits: KVM_IOEVENTFD (api.rst 4.59). */
import { inspect } from 'node:util'
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOptions, hex } from '../../abi/arguments.js'
import { making } from '../../abi/exhausted.js'
import { KVM_IOEVENTFD_FLAG_DATAMATCH, KVM_IOEVENTFD_FLAG_PIO } from '../../abi/generated/constants.js'
import { KVM_IOEVENTFD } from '../../abi/generated/requests.js'
import { kvm_ioeventfd } from '../../abi/generated/structures.js'
import { fixParent, ours } from '../../abi/internal.js'
import type { Causes, Handle } from '../../abi/ioctls.js'
import type { NativeRegistration, NativeVm } from '../../abi/native.js'
import { shown } from '../../abi/text.js'
import { createEventfd, Eventfd, listen, unlisten } from '../eventfd.js'

/** The options of {@link Vm.ioeventfd}: a port or a GPA, and the width of the write. */
export interface IoEventfdOptions {
  /** An I/O port. Give this or `gpa`. */
  port?: number
  /** A guest-physical address outside every memslot. */
  gpa?: Gpa
  /** The bytes of the write: 1, 2, 4 or 8. If it is 0 or absent, any width counts (KVM_CAP_IOEVENTFD_ANY_LENGTH). */
  size?: 0 | 1 | 2 | 4 | 8
  /** The value to wait for. If it is absent, every write counts. */
  datamatch?: bigint
}

const causes: Causes = {
  EEXIST: 'the VM already has an ioeventfd at this address, with this size and value',
  ENOSPC: 'a bus of a VM has room for 1000 devices, and it is full'
}

function requestOf(options: IoEventfdOptions, fd: number): kvm_ioeventfd {
  const { port, gpa, size = 0, datamatch } = checkOptions('options', options, ['port', 'gpa', 'size', 'datamatch'])
  if ((port === undefined) === (gpa === undefined)) throw argumentError('port', port, 'given, or else gpa')
  if (![0, 1, 2, 4, 8].includes(size)) throw argumentError('size', size, '1, 2, 4, 8, or 0 for any')
  if (datamatch !== undefined && typeof datamatch !== 'bigint') throw argumentError('datamatch', datamatch, 'a bigint')
  if (datamatch !== undefined && size === 0) throw argumentError('datamatch', datamatch, 'given together with a size')
  // KVM compares all bits of the value with the written ones, so a value wider than the write would never match.
  if (datamatch !== undefined && BigInt.asUintN(8 * size, datamatch) !== datamatch)
    throw argumentError('datamatch', datamatch, `a bigint of ${size} bytes, from 0 on`)
  const addr = port === undefined ? checkAddress('gpa', gpa) : checkInteger('port', port, 0, 0xffff)
  return new kvm_ioeventfd({
    addr,
    len: size,
    fd,
    datamatch: datamatch ?? 0n,
    flags: (datamatch === undefined ? 0 : KVM_IOEVENTFD_FLAG_DATAMATCH) | (port === undefined ? 0 : KVM_IOEVENTFD_FLAG_PIO)
  })
}

/** @internal */
export let makeIoEventfd: (vm: NativeVm, handle: Handle, options: IoEventfdOptions, onClose: () => void) => IoEventfd

/**
 * A doorbell for the guest. KVM counts the guest's writes to it, and the event loop gets the counts. {@link Vm.ioeventfd} makes it.
 * @example
 * using doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
 * doorbell.on('event', (count) => console.log(`rung ${count} times`))
 */
export class IoEventfd extends Eventfd {
  readonly #registration: NativeRegistration
  /** The port, or the GPA. */
  readonly #at: string

  static {
    fixParent(IoEventfd)
    makeIoEventfd = (...given) => new IoEventfd(ours, ...given)
  }

  private constructor(key: symbol, vm: NativeVm, handle: Handle, options: IoEventfdOptions, onClose: () => void) {
    super(key, onClose)
    const eventfd = createEventfd()
    try {
      const request = requestOf(options, eventfd.fd)
      this.#at = hex(request.addr)
      listen(this, eventfd)
      // This step comes last: from here on the guest's writes are no exits.
      const made = making(() => vm.ioeventfd(request.bytes))
      if (typeof made === 'number') throw handle.refused(KVM_IOEVENTFD, made, `making an ioeventfd at ${hex(request.addr)}`, causes, { ...options })
      this.#registration = made
    } catch (error) {
      unlisten(this)
      throw error
    } finally {
      eventfd.close()
    }
  }

  /** Whether close() was called, on this object or on the VM. */
  get closed(): boolean {
    return this.#registration.fd < 0
  }

  /** Closes the doorbell: the guest's writes are exits again. A second call does nothing. */
  override close(): void {
    if (this.closed) return
    this.#registration.close()
    super.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('IoEventfd', { at: this.#at, closed: this.closed })
  }
}
