/** Guest memory in a file of KVM: KVM_CREATE_GUEST_MEMFD (api.rst 4.142). */
import { inspect } from 'node:util'
import { argumentError, checkBoolean, checkInteger, checkOptions, checkSize, hex, pageSize, restAfter } from '../abi/arguments.js'
import { errnoName, errnoText, exhaustion, KvmError } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { capabilities } from '../abi/generated/capabilities.js'
import { GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP } from '../abi/generated/constants.js'
import { KVM_CHECK_EXTENSION, KVM_CREATE_GUEST_MEMFD } from '../abi/generated/requests.js'
import { kvm_create_guest_memfd } from '../abi/generated/structures.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { Handle } from '../abi/ioctls.js'
import type { NativeDescriptor, NativeVm } from '../abi/native.js'
import { shown } from '../abi/text.js'
import { type Mapping, mapDescriptor } from './mapping.js'
import { commonOptions, type MappingOptions } from './mapping-options.js'

/** The flags, by the names of the options that set them. */
const flagsByName = { mmap: GUEST_MEMFD_FLAG_MMAP, initShared: GUEST_MEMFD_FLAG_INIT_SHARED } as const
type FlagName = keyof typeof flagsByName
const namesOf = (flags: number) => Object.entries(flagsByName).flatMap(([name, flag]) => (flags & flag ? [name] : []))

/** Options for {@link Vm.createGuestMemfd}. */
export interface GuestMemfdOptions {
  /** The size in bytes, a multiple of 4 KiB. */
  size: number
  /** Whether this process may map the file with {@link GuestMemfd.mmap} (GUEST_MEMFD_FLAG_MMAP, Linux 6.18). */
  mmap?: boolean
  /** Whether the pages are at first shared with the host instead of private to the guest (GUEST_MEMFD_FLAG_INIT_SHARED, Linux 6.18). */
  initShared?: boolean
  /** Further GUEST_MEMFD_FLAG_ bits, passed on unchanged: for flags that this library does not know. */
  flags?: number
}

/** @internal */
export let createGuestMemfd: (vm: NativeVm, handle: Handle, options: GuestMemfdOptions) => GuestMemfd
/** @internal Returns the open descriptor. */
export let descriptorOf: (memfd: GuestMemfd) => number
/** @internal Returns the VM that made the file; only that VM may use it. */
export let ownerOf: (memfd: GuestMemfd) => NativeVm
/** @internal */
export function checkOpen(memfd: GuestMemfd): void {
  if (memfd.closed) throw new KvmError('closed', 'this guest_memfd is closed')
}

function checkedFlags(options: GuestMemfdOptions): number {
  const { mmap = false, initShared = false, flags = 0 } = options
  const named = Object.entries({ mmap, initShared }) as [FlagName, boolean][]
  const bits = named.reduce((sum, [name, wanted]) => sum | (checkBoolean(name, wanted) ? flagsByName[name] : 0), 0)
  return (bits | checkInteger('flags', flags, 0, 2 ** 31 - 1)) >>> 0
}

/** Finds out from KVM's capabilities whether it makes any guest_memfd for this VM, and with which flags. */
function notCreated(handle: Handle, size: number, flags: number, result: number): KvmError {
  const asked = `creating a guest_memfd of ${hex(size)} bytes`
  const check = (capability: number) => handle.send(KVM_CHECK_EXTENSION, capability)
  const lacking = (why: string) =>
    new KvmError('unavailable', `${handle.name}: ${asked}: ${errnoText(result)}; ${why}`, {
      errno: errnoName(result),
      ioctl: KVM_CREATE_GUEST_MEMFD.name
    })
  if (handle.closed) return handle.closedError()
  if (errnoName(result) === 'ENOTTY') return lacking('this kernel lacks guest_memfd, which needs Linux 6.8, built with CONFIG_KVM_GUEST_MEMFD')
  if (errnoName(result) !== 'EINVAL') return handle.refused(KVM_CREATE_GUEST_MEMFD, result, asked)
  if (check(capabilities.GUEST_MEMFD) <= 0)
    return lacking('KVM makes none for VMs of this type (KVM_CAP_GUEST_MEMFD): before Linux 6.18 it did so only for VMs with private memory')
  const known = Math.max(0, check(capabilities.GUEST_MEMFD_FLAGS))
  const unknown = (flags & ~known) >>> 0
  if (unknown === 0) return handle.refused(KVM_CREATE_GUEST_MEMFD, result, asked)
  const which = namesOf(unknown).join(' and ') || `the flag ${hex(unknown)}`
  return lacking(`KVM does not know ${which} here; it knows ${namesOf(known).join(' and ') || 'no flag'} (KVM_CAP_GUEST_MEMFD_FLAGS)`)
}

/**
 * A guest_memfd of one VM. {@link Vm.createGuestMemfd} makes it. A memslot that was created with it keeps it alive in the kernel.
 * @example
 * using secret = vm.createGuestMemfd({ size: 2 * MiB })
 * vm.memslots.create({ gpa: 0x10_0000, mapping, guestMemfd: secret })
 */
export class GuestMemfd implements Disposable {
  /** The size in bytes. */
  readonly size: number
  /** The GUEST_MEMFD_FLAG_ bits. */
  readonly flags: number
  readonly #native: NativeDescriptor
  readonly #owner: NativeVm

  static {
    createGuestMemfd = (...given) => GuestMemfd.#create(...given)
    descriptorOf = (memfd) => {
      checkOpen(memfd)
      return memfd.#native.fd
    }
    ownerOf = (memfd) => memfd.#owner
  }

  private constructor(key: symbol, owner: NativeVm, memfd: NativeDescriptor, size: number, flags: number) {
    checkOurs(key, 'a GuestMemfd', 'createGuestMemfd() of a Vm')
    this.#owner = owner
    this.#native = memfd
    this.size = size
    this.flags = flags
  }

  static #create(vm: NativeVm, handle: Handle, options: GuestMemfdOptions): GuestMemfd {
    checkOptions('options', options, ['size', 'mmap', 'initShared', 'flags'])
    const size = checkSize('size', options.size, pageSize)
    const flags = checkedFlags(options)
    const argument = new kvm_create_guest_memfd({ size, flags: BigInt(flags) })
    const memfd = making(() => vm.createGuestMemfd(argument.bytes))
    if (typeof memfd === 'number') throw notCreated(handle, size, flags, memfd)
    return new GuestMemfd(ours, vm, memfd, size, flags)
  }

  /** Whether this process may map the file. */
  get mappable(): boolean {
    return (this.flags & flagsByName.mmap) !== 0
  }
  /** Whether close() was called. Every other call then throws `closed`. */
  get closed(): boolean {
    return this.#native.fd < 0
  }

  #range(offset: number, length: number): void {
    checkOpen(this)
    checkInteger('offset', offset)
    checkSize('length', length, pageSize)
    if (offset % pageSize !== 0) throw argumentError('offset', offset, `a multiple of ${pageSize}`)
    if (offset + length > this.size)
      throw new KvmError('argument', `offset ${hex(offset)} and length ${hex(length)} reach past the guest_memfd's end at ${hex(this.size)}`, {
        argument: 'offset'
      })
  }

  #allocate(did: string, punch: boolean, offset: number, length: number): void {
    this.#range(offset, length)
    const result = making(() => this.#native.allocate(punch, offset, length))
    if (result >= 0) return
    const asked = `${did} of ${hex(length)} bytes at ${hex(offset)} of a guest_memfd`
    const errno = errnoName(result)
    throw exhaustion(asked, result) ?? new KvmError('memory', `${asked}: ${errno}`, { errno })
  }

  /**
   * Allocates pages before the guest touches them: fallocate(2). Pages that are already there stay as they are.
   * @throws KvmError `argument`, `closed`, or `memory` if there is not enough
   */
  allocate(offset = 0, length = restAfter(offset, this.size)): void {
    this.#allocate('allocate', false, offset, length)
  }

  /**
   * Frees pages, and takes them from the guest: fallocate(2) with FALLOC_FL_PUNCH_HOLE. The next access finds pages of zeros.
   * @throws KvmError `argument`, `closed`
   */
  punchHole(offset = 0, length = restAfter(offset, this.size)): void {
    this.#allocate('punchHole', true, offset, length)
  }

  /**
   * Maps the pages into this process's address space. An access to a page that is private to the guest fails with EFAULT; without `initShared` all
   * pages are private. The mapping's `kind` is `file`; it stays valid when this handle is closed.
   * @throws KvmError `state` unless the file was created with `mmap`, `argument`, `closed`, `memory`
   * @example
   * using shared = vm.createGuestMemfd({ size: 2 * MiB, mmap: true, initShared: true })
   * using mapping = shared.mmap()
   */
  mmap(options: MappingOptions & { offset?: number; size?: number } = {}): Mapping {
    checkOptions('options', options, [...commonOptions, 'offset', 'size'])
    const { offset = 0, size = restAfter(offset, this.size), ...rest } = options
    this.#range(offset, size)
    if (!this.mappable)
      throw new KvmError('state', 'this guest_memfd cannot be mapped: create it with { mmap: true } (GUEST_MEMFD_FLAG_MMAP, Linux 6.18)')
    return mapDescriptor({ kind: 'file', size, offset, fd: this.#native.fd, shared: true }, rest)
  }

  /** Closes the handle; slots and mappings that were made with it keep the memory. A second call does nothing. */
  close(): void {
    this.#native.close()
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('GuestMemfd', { size: hex(this.size), flags: namesOf(this.flags).join('+') || undefined, closed: this.closed })
  }
}
