/**
 * The one door to an ioctl. Whoever sends one says in a few words what for; the door checks the arguments and the handle, sends it, and turns
 * what the kernel refused into an error that says what was asked, what the kernel said, and what to do where the cause is known.
 */
import { argumentError } from './arguments.js'
import { errnoName, ioctlError, KvmError, type KvmErrorDetails } from './errors.js'
import { zeroed } from './exhausted.js'
import type { Fields } from './fields.js'
import type { Ioctl } from './ioctl.js'
import type { NativeDescriptor, NativeVcpu } from './native.js'
import type { Some, StructInstance, StructType } from './struct.js'
import { type ShownParts, shown } from './text.js'
import { inRun, ioctlVcpu } from './vcpu-calls.js'

/**
 * What a request was refused for, by the errno's name: a text where the kernel gives that errno for one reason only, or a function that looks
 * for the reason and returns nothing where it finds none.
 */
export type Causes = Readonly<Record<string, string | (() => string | undefined)>>

/** What ioctls are sent to: a descriptor of KVM's, and how errors call it. */
export class Handle {
  /** `this VM`, `vCPU 3`. */
  readonly name: string
  readonly #native: NativeDescriptor

  constructor(native: NativeDescriptor, name: string) {
    this.#native = native
    this.name = name
  }

  get closed(): boolean {
    return this.#native.fd < 0
  }

  /** For what the kernel is not asked: an ioctl of a closed handle is refused by itself. */
  checkOpen(): void {
    if (this.closed) throw this.closedError()
  }

  /** What console.log() shows of what is used by this handle. */
  shown(name: string, parts: ShownParts = { of: this.name }): string {
    return shown(name, { ...parts, closed: this.closed })
  }

  closedError(): KvmError {
    return new KvmError('closed', `${this.name} is closed`)
  }

  /** The kernel's answer, or a negative errno. */
  send(ioctl: Ioctl, argument?: number | Uint8Array): number {
    return this.#native.ioctl(ioctl.number, argument)
  }

  /** An ioctl whose argument is absent, a number, or the bytes of a structure; its answer. */
  plain(ioctl: Ioctl, asked: string, argument?: number | Uint8Array, causes?: Causes): number {
    const result = this.send(ioctl, argument)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return result
  }

  /** Reads a structure, into one that the caller has or a new one. */
  get<F extends Fields>(ioctl: Ioctl, type: StructType<F>, asked: string, into = new type(), causes?: Causes): StructInstance<F> {
    if (into?.constructor !== type) throw argumentError('into', into, `an instance for ${type.structName}`)
    const result = this.send(ioctl, into.bytes)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return into
  }

  /**
   * Writes a structure: an instance whole, or some fields by name.
   * @param current gives the fields that are not named; zeros if absent
   */
  set<F extends Fields>(ioctl: Ioctl, type: StructType<F>, asked: string, values: Some<F>, current?: () => StructInstance<F>, causes?: Causes): void {
    let whole = values as StructInstance<F>
    if (values?.constructor !== type) {
      whole = current ? current() : new type()
      type.assign(whole, type.structName, values)
    }
    const result = this.send(ioctl, whole.bytes)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
  }

  /**
   * Sends a list of entries behind their count.
   * @returns the kernel's answer, and the entries as it left them
   */
  list<F extends Fields>(
    ioctl: Ioctl,
    type: StructType<F>,
    entries: readonly StructInstance<F>[],
    asked: string,
    causes?: Causes
  ): { done: number; entries: StructInstance<F>[] } {
    const place = (index: number) => ioctl.size + index * type.size
    const memory = zeroed(place(entries.length))
    entries.forEach(({ bytes }, index) => memory.set(bytes, place(index)))
    const done = this.counted(ioctl, entries.length, memory, asked, causes)
    return { done, entries: entries.map((_, index) => type.over(memory.subarray(place(index)))) }
  }

  /** Reads a list whose length the kernel knows: while it says that the room is too small, there is more. */
  whole<F extends Fields>(ioctl: Ioctl, type: StructType<F>, asked: string): StructInstance<F>[] {
    for (let room = 128; ; room *= 2) {
      const memory = zeroed(ioctl.size + room * type.size)
      const result = this.#sendCounted(ioctl, room, memory)
      if (errnoName(result) === 'E2BIG') continue
      if (result < 0) throw this.refused(ioctl, result, asked)
      const count = new DataView(memory.buffer).getUint32(0, true)
      // Copies: who changes one entry, or transfers its memory away, leaves the others as they were.
      return Array.from({ length: count }, (_, index) => new type(type.over(memory.subarray(ioctl.size + index * type.size)) as Some<F>))
    }
  }

  /** A structure that begins with the count of what follows it. */
  counted(ioctl: Ioctl, count: number, memory: Uint8Array, asked: string, causes?: Causes): number {
    const result = this.#sendCounted(ioctl, count, memory)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return result
  }

  #sendCounted(ioctl: Ioctl, count: number, memory: Uint8Array): number {
    new DataView(memory.buffer, memory.byteOffset).setUint32(0, count, true)
    return this.#native.ioctlCounted(ioctl.number, memory)
  }

  /** The error for a negative errno, also of what the add-on sends by itself. */
  refused(ioctl: Ioctl, result: number, asked: string, causes: Causes = {}, details?: KvmErrorDetails): KvmError {
    if (this.closed) return this.closedError()
    const cause = causes[errnoName(result)]
    return ioctlError(ioctl.name, result, `${this.name}: ${asked}`, typeof cause === 'function' ? cause() : cause, details)
  }
}

/** A vCPU's descriptor. While the vCPU runs on some thread each of its ioctls is refused: the kernel would wait for the end of KVM_RUN. */
export class VcpuHandle extends Handle {
  /** By which the add-on knows the vCPU in ./vcpu-calls.ts. */
  readonly number: number

  constructor(native: NativeVcpu, id: number, number: number) {
    super(native, `vCPU ${id}`)
    this.number = number
  }

  override send(ioctl: Ioctl, argument?: number | Uint8Array): number {
    return ioctlVcpu(this.number, ioctl.number, argument)
  }

  override refused(ioctl: Ioctl, result: number, asked: string, causes?: Causes, details?: KvmErrorDetails): KvmError {
    if (result === inRun)
      return new KvmError('busy', `${this.name}: ${asked} while it runs would wait for the guest; await pause(), or kick() it out, first`, {
        ioctl: ioctl.name
      })
    // Whoever created the VM has closed it for all.
    if (errnoName(result) === 'EBADF') return this.closedError()
    return super.refused(ioctl, result, asked, causes, details)
  }
}
