/** Memory that only the guest reaches: KVM_CREATE_GUEST_MEMFD (api.rst 4.142). */
import { checkInteger, checkOptions, checkSize, hex, pageSize } from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { NativeDescriptor, NativeVm } from '../abi/native.js'
import { KVM_CREATE_GUEST_MEMFD } from '../abi/requests.js'
import { CreateGuestMemfd } from '../abi/structures.js'

/** Of {@link Vm.createGuestMemfd}. */
export interface GuestMemfdOptions {
  /** Bytes, a multiple of 4 KiB. */
  size: number
  /** GUEST_MEMFD_FLAG_ bits; which there are says the capability GUEST_MEMFD_FLAGS. */
  flags?: number
}

/** @internal */
export let createGuestMemfd: (vm: NativeVm, options: GuestMemfdOptions) => GuestMemfd
/** @internal */
export let descriptorOf: (memfd: GuestMemfd) => number
/** @internal the VM that made it, and that alone may use it */
export let ownerOf: (memfd: GuestMemfd) => NativeVm
/** @internal */
export function checkOpen(memfd: GuestMemfd): void {
  if (memfd.closed) throw new KvmError('closed', 'this guest_memfd is closed')
}

/**
 * A guest_memfd of one VM. Made by {@link Vm.createGuestMemfd}; a memslot created with it keeps it alive in the kernel.
 * @example
 * using secret = vm.createGuestMemfd({ size: 2 * MiB })
 * vm.memslots.create({ gpa: 0x10_0000, mapping, guestMemfd: secret })
 */
export class GuestMemfd implements Disposable {
  /** Bytes. */
  readonly size: number
  readonly #native: NativeDescriptor
  readonly #owner: NativeVm

  static {
    createGuestMemfd = (vm, options) => GuestMemfd.#create(vm, options)
    descriptorOf = (memfd) => memfd.#native.fd
    ownerOf = (memfd) => memfd.#owner
  }

  private constructor(key: symbol, owner: NativeVm, memfd: NativeDescriptor, size: number) {
    checkOurs(key, 'a GuestMemfd', 'createGuestMemfd() of a Vm')
    this.#owner = owner
    this.#native = memfd
    this.size = size
  }

  static #create(vm: NativeVm, options: GuestMemfdOptions): GuestMemfd {
    checkOptions('options', options, ['size', 'flags'])
    const size = checkSize('size', options.size, pageSize)
    const argument = new CreateGuestMemfd({ size, flags: BigInt(checkInteger('flags', options.flags ?? 0)) })
    const memfd = vm.createGuestMemfd(argument.bytes)
    if (typeof memfd !== 'number') return new GuestMemfd(ours, vm, memfd, size)
    const errno = errnoName(memfd)
    throw new KvmError(
      errno === 'ENOTTY' ? 'unavailable' : 'ioctl',
      `creating a guest_memfd of ${hex(size)} bytes: ${errno}; it needs Linux 6.8 or later and a VM type that has private memory (KVM_CAP_GUEST_MEMFD)`,
      { errno, ioctl: KVM_CREATE_GUEST_MEMFD.name }
    )
  }

  /** Whether close() was called. Any other use then throws `closed`. */
  get closed(): boolean {
    return this.#native.fd < 0
  }

  /** Closes the handle; slots made with it keep the memory. A second call does nothing. */
  close(): void {
    this.#native.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}
