/**
 * The only way to an ioctl. The caller says in a few words what the ioctl is for. The handle checks the arguments and its own state, sends it, and
 * turns a refusal into an error: what was asked, what the kernel said, and what to do if the cause is known.
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
 * Why a request was refused, by the errno's name. The cause is a text if the kernel gives that errno for one reason only; otherwise it is a
 * function that looks for the reason, and returns undefined if it finds none.
 */
export type Causes = Readonly<Record<string, string | (() => string | undefined)>>

/** A descriptor of KVM that ioctls are sent to, and the name that errors use for it. */
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

  /** Refuses a closed handle before work that sends no ioctl: an ioctl of a closed handle fails by itself. */
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

  /** Returns the kernel's answer, or a negative errno. */
  send(ioctl: Ioctl, argument?: number | Uint8Array): number {
    return this.#native.ioctl(ioctl.number, argument)
  }

  /** Sends an ioctl whose argument is absent, a number, or the bytes of a structure, and returns its answer. */
  plain(ioctl: Ioctl, asked: string, argument?: number | Uint8Array, causes?: Causes): number {
    const result = this.send(ioctl, argument)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return result
  }

  /** Reads a structure into `into`, or into a new one. */
  get<F extends Fields>(ioctl: Ioctl, type: StructType<F>, asked: string, into = new type(), causes?: Causes): StructInstance<F> {
    if (into?.constructor !== type) throw argumentError('into', into, `an instance for ${type.structName}`)
    const result = this.send(ioctl, into.bytes)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return into
  }

  /**
   * Writes a structure: a whole instance, or some fields by name.
   * @param current returns the values of the fields that are not named; they are zero if it is absent
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
   * Sends a list of entries after their count.
   * @returns the kernel's answer, and the entries as the kernel left them
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

  /** Reads a list whose length only the kernel knows: it makes more room as long as the kernel says that the room is too small. */
  whole<F extends Fields>(ioctl: Ioctl, type: StructType<F>, asked: string): StructInstance<F>[] {
    for (let room = 128; ; room *= 2) {
      const memory = zeroed(ioctl.size + room * type.size)
      const result = this.#sendCounted(ioctl, room, memory)
      if (errnoName(result) === 'E2BIG') continue
      if (result < 0) throw this.refused(ioctl, result, asked)
      const count = new DataView(memory.buffer).getUint32(0, true)
      // Each entry is a copy: a change to one, or a transfer of its memory, leaves the others as they were.
      return Array.from({ length: count }, (_, index) => new type(type.over(memory.subarray(ioctl.size + index * type.size)) as Some<F>))
    }
  }

  /** Sends a structure that begins with the count of the entries after it. */
  counted(ioctl: Ioctl, count: number, memory: Uint8Array, asked: string, causes?: Causes): number {
    const result = this.#sendCounted(ioctl, count, memory)
    if (result < 0) throw this.refused(ioctl, result, asked, causes)
    return result
  }

  #sendCounted(ioctl: Ioctl, count: number, memory: Uint8Array): number {
    new DataView(memory.buffer, memory.byteOffset).setUint32(0, count, true)
    return this.#native.ioctlCounted(ioctl.number, memory)
  }

  /** Makes the error for a negative errno, also for ioctls that the add-on sends. */
  refused(ioctl: Ioctl, result: number, asked: string, causes: Causes = {}, details?: KvmErrorDetails): KvmError {
    if (this.closed) return this.closedError()
    const cause = causes[errnoName(result)]
    return ioctlError(ioctl.name, result, `${this.name}: ${asked}`, typeof cause === 'function' ? cause() : cause, details)
  }
}

/** The descriptor of a vCPU. While a thread runs the vCPU, its ioctls are refused: the kernel would make them wait for the end of KVM_RUN. */
export class VcpuHandle extends Handle {
  /** The number by which ./vcpu-calls.ts names the vCPU to the add-on. */
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
    // The environment that created the VM has closed it for all.
    if (errnoName(result) === 'EBADF') return this.closedError()
    return super.refused(ioctl, result, asked, causes, details)
  }
}
