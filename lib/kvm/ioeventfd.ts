/** Writes of the guest that become events instead of exits: KVM_IOEVENTFD (api.rst 4.59). */
import { argumentError, checkAddress, checkInteger, checkOptions, hex } from '../abi/arguments.js'
import { ioctlError } from '../abi/errors.js'
import type { NativeDescriptor, NativeVm } from '../abi/native.js'
import { KVM_IOEVENTFD } from '../abi/requests.js'
import { IoEventfd as Request } from '../abi/structures.js'
import { createEventfd, EventSource } from './eventfd.js'

/** Of {@link Vm.ioeventfd}: a port or a GPA, and how wide the write must be. */
export interface IoEventfdOptions {
  /** An I/O port; or else `gpa`. */
  port?: number
  /** A guest-physical address outside every memslot. */
  gpa?: number
  /** Bytes of the write: 1, 2, 4 or 8; any width if 0 or absent (KVM_CAP_IOEVENTFD_ANY_LENGTH). */
  size?: 0 | 1 | 2 | 4 | 8
  /** Only writes of this value. */
  datamatch?: bigint
}

const flags = { datamatch: 1, pio: 2, deassign: 4 }

function requestOf(options: IoEventfdOptions, fd: number): InstanceType<typeof Request> {
  const { port, gpa, size = 0, datamatch } = checkOptions('options', options, ['port', 'gpa', 'size', 'datamatch'])
  if ((port === undefined) === (gpa === undefined)) throw argumentError('port', port, 'given, or else gpa')
  if (![0, 1, 2, 4, 8].includes(size)) throw argumentError('size', size, '1, 2, 4, 8, or 0 for any')
  if (datamatch !== undefined && typeof datamatch !== 'bigint') throw argumentError('datamatch', datamatch, 'a bigint')
  if (datamatch !== undefined && size === 0) throw argumentError('datamatch', datamatch, 'given together with a size')
  // KVM compares the whole number with what was written: a wider one would never match.
  if (datamatch !== undefined && BigInt.asUintN(8 * size, datamatch) !== datamatch)
    throw argumentError('datamatch', datamatch, `a bigint of ${size} bytes, from 0 on`)
  const addr = port === undefined ? checkAddress('gpa', gpa) : checkInteger('port', port, 0, 0xffff)
  return new Request({
    addr,
    len: size,
    fd,
    datamatch: datamatch ?? 0n,
    flags: (datamatch === undefined ? 0 : flags.datamatch) | (port === undefined ? 0 : flags.pio)
  })
}

/**
 * A doorbell of the guest: its write there is counted by KVM, and heard in the event loop. Made by {@link Vm.ioeventfd}.
 * @example
 * using doorbell = vm.ioeventfd({ port: 0x10, size: 1 })
 * doorbell.on('event', (count) => console.log(`rung ${count} times`))
 */
export class IoEventfd extends EventSource {
  readonly #vm: NativeVm
  readonly #eventfd: NativeDescriptor
  readonly #request: InstanceType<typeof Request>

  /** @internal */
  constructor(vm: NativeVm, options: IoEventfdOptions, onClose: () => void) {
    super(onClose)
    this.#vm = vm
    this.#eventfd = createEventfd()
    try {
      this.#request = requestOf(options, this.#eventfd.fd)
      this.listen(this.#eventfd)
      // Last: from here on the guest's writes are no exits.
      const result = vm.ioctl(KVM_IOEVENTFD.number, this.#request.bytes)
      if (result < 0)
        throw ioctlError(KVM_IOEVENTFD.name, result, `an ioeventfd at ${hex(this.#request.addr)}`, 'EEXIST: there is one with this size and value', {
          ...options
        })
    } catch (error) {
      this.unlisten()
      this.#eventfd.close()
      throw error
    }
  }

  /** Whether close() was called, here or on the VM. */
  get closed(): boolean {
    return this.#eventfd.fd < 0
  }

  /** The guest's writes are exits again. A second call does nothing. */
  override close(): void {
    if (this.closed) return
    // A VM that is closed has forgotten it.
    this.#request.flags |= flags.deassign
    if (this.#vm.fd >= 0) this.#vm.ioctl(KVM_IOEVENTFD.number, this.#request.bytes)
    this.#eventfd.close()
    super.close()
  }
}
