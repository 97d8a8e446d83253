/** A device's interrupt line that any thread can raise: KVM_IRQFD (api.rst 4.75). */
import { inspect } from 'node:util'
import { checkBoolean, checkInteger, checkOptions } from '../../abi/arguments.js'
import { KvmError } from '../../abi/errors.js'
import { KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE } from '../../abi/generated/constants.js'
import { KVM_IRQFD } from '../../abi/generated/requests.js'
import { kvm_irqfd } from '../../abi/generated/structures.js'
import { fixParent, ours } from '../../abi/internal.js'
import type { Causes, Handle } from '../../abi/ioctls.js'
import type { NativeDescriptor } from '../../abi/native.js'
import { shown } from '../../abi/text.js'
import { createEventfd, Eventfd, listen, signalEventfd, unlisten } from '../eventfd.js'

/** The options of {@link VmInterrupts.irqfd}. */
export interface IrqfdOptions {
  /** The global system interrupt that it raises. setRouting() decides where that leads. */
  gsi: number
  /**
   * Whether the line is level-triggered. KVM lowers it at the guest's end of interrupt and emits `'event'`, for a device that must raise it again.
   */
  resample?: boolean
}

/** @internal */
export let makeIrqfd: (handle: Handle, options: IrqfdOptions, causesFor: (gsi: number) => Causes, onClose: () => void) => Irqfd

/**
 * A device's interrupt line. Any thread of the process can raise it without making a vCPU leave the guest: KVM_IRQFD. {@link VmInterrupts.irqfd}
 * makes it.
 * @example
 * using machine = kvm.createVm()
 * machine.interrupts.createIrqchip()
 * using line = machine.interrupts.irqfd({ gsi: 5 })
 * line.trigger()
 */
export class Irqfd extends Eventfd {
  readonly gsi: number
  readonly #handle: Handle
  readonly #eventfd: NativeDescriptor
  readonly #resample: NativeDescriptor | undefined
  readonly #assignment: kvm_irqfd

  static {
    fixParent(Irqfd)
    makeIrqfd = (...given) => new Irqfd(ours, ...given)
  }

  private constructor(key: symbol, handle: Handle, options: IrqfdOptions, causesFor: (gsi: number) => Causes, onClose: () => void) {
    super(key, onClose)
    const { gsi, resample = false } = checkOptions('options', options, ['gsi', 'resample'])
    checkBoolean('resample', resample)
    this.gsi = checkInteger('gsi', gsi, 0, 0xffff_ffff)
    this.#handle = handle
    this.#eventfd = createEventfd()
    try {
      this.#resample = resample ? createEventfd() : undefined
      if (this.#resample) listen(this, this.#resample)
      this.#assignment = new kvm_irqfd({
        fd: this.#eventfd.fd,
        gsi,
        flags: resample ? KVM_IRQFD_FLAG_RESAMPLE : 0,
        resamplefd: this.#resample?.fd ?? 0
      })
      // This step comes last: from here on the line can be raised.
      handle.plain(KVM_IRQFD, `making an irqfd for GSI ${gsi}`, this.#assignment.bytes, causesFor(gsi))
    } catch (error) {
      unlisten(this)
      this.#eventfd.close()
      this.#resample?.close()
      throw error
    }
  }

  /** Whether close() was called, on this object or on the VM. */
  get closed(): boolean {
    return this.#eventfd.fd < 0
  }

  /** Raises the interrupt. If it is raised twice before the guest takes it, the guest gets it once. */
  trigger(): void {
    if (this.closed) throw new KvmError('closed', `the irqfd of GSI ${this.gsi} is closed`)
    signalEventfd(this.#eventfd)
  }

  /** Releases the line. A second call does nothing. */
  override close(): void {
    if (this.closed) return
    this.#assignment.flags = KVM_IRQFD_FLAG_DEASSIGN
    // If the VM is closed, KVM has already released the line.
    if (!this.#handle.closed) this.#handle.send(KVM_IRQFD, this.#assignment.bytes)
    this.#eventfd.close()
    this.#resample?.close()
    super.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('Irqfd', { gsi: this.gsi, closed: this.closed })
  }
}
