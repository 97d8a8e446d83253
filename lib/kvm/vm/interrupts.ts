/** Interrupts with the controllers in the kernel (api.rst 4.24 to 4.26, 4.52, 4.70, 4.75): what a VMM's devices raise. */
import { checkBoolean, checkInteger, checkList, checkOneOf, checkOptions } from '../../abi/arguments.js'
import { checked, errnoName, ioctlError, KvmError } from '../../abi/errors.js'
import { KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE } from '../../abi/generated/constants.js'
import { fixParent, ours } from '../../abi/internal.js'
import type { NativeDescriptor, NativeVm } from '../../abi/native.js'
import { KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2, KVM_IRQ_LINE, KVM_IRQFD, KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI } from '../../abi/requests.js'
import { IrqLevel, IrqRoutingEntry, Msi, PitConfig, Irqfd as Request } from '../../abi/structures.js'
import { createEventfd, EventSource, listen, signalEventfd, unlisten } from '../eventfd.js'

/** A message-signalled interrupt (Intel SDM volume 3, 12.11). */
export interface MsiMessage {
  /** Where a device would write: 0xfee00000 and the destination's APIC id at bit 12. */
  address: number
  /** The vector in the low byte. */
  data: number
}

/** Where a global system interrupt leads. */
export type GsiRoute = { gsi: number; irqchip: 'pic-master' | 'pic-slave' | 'ioapic'; pin: number } | { gsi: number; msi: MsiMessage }

const irqchips = ['pic-master', 'pic-slave', 'ioapic'] as const
const noIrqchip = 'EINVAL or ENXIO: the VM has no interrupt controller; createIrqchip() before the first vCPU'
const u32 = (name: string, value: unknown) => checkInteger(name, value, 0, 0xffff_ffff)

/** @internal */
export function createIrqchip(vm: NativeVm): void {
  const result = vm.ioctl(KVM_CREATE_IRQCHIP.number)
  if (result >= 0) return
  const advice: Record<string, string> = { EEXIST: 'the VM has it already', EINVAL: 'it must be made before the first vCPU' }
  throw ioctlError(KVM_CREATE_IRQCHIP.name, result, 'creating the interrupt controllers', advice[errnoName(result)] ?? 'the host may lack them')
}

/** @internal */
export function createPit(vm: NativeVm, options: { speaker?: boolean }): void {
  const { speaker = false } = checkOptions('options', options, ['speaker'])
  const result = vm.ioctl(KVM_CREATE_PIT2.number, new PitConfig({ flags: checkBoolean('speaker', speaker) ? 1 : 0 }).bytes)
  const advice: Record<string, string> = { EEXIST: 'the VM has it already', ENOENT: 'it needs createIrqchip() first' }
  if (result < 0) throw ioctlError(KVM_CREATE_PIT2.name, result, 'creating the timer', advice[errnoName(result)] ?? 'the host may lack it')
}

/** @internal */
export function setIrqLine(vm: NativeVm, gsi: number, level: boolean): void {
  const line = new IrqLevel({ irq: u32('gsi', gsi), level: checkBoolean('level', level) ? 1 : 0 })
  checked(vm.ioctl(KVM_IRQ_LINE.number, line.bytes), KVM_IRQ_LINE.name, `setting GSI ${gsi}`, noIrqchip)
}

/** @internal */
export function signalMsi(vm: NativeVm, message: MsiMessage): boolean {
  const { address, data } = checkOptions('message', message, ['address', 'data'])
  const msi = new Msi({ ...splitAddress(address), data: u32('data', data) })
  return checked(vm.ioctl(KVM_SIGNAL_MSI.number, msi.bytes), KVM_SIGNAL_MSI.name, 'sending a message-signalled interrupt', noIrqchip) > 0
}

function splitAddress(address: number): { address_lo: number; address_hi: number } {
  checkInteger('address', address)
  return { address_lo: address % 2 ** 32, address_hi: Math.floor(address / 2 ** 32) }
}

function routeEntry(route: GsiRoute): Uint8Array {
  const gsi = u32('gsi', route?.gsi)
  if ('msi' in route) {
    const { msi } = checkOptions('route', route, ['gsi', 'msi'])
    const { address, data } = checkOptions('msi', msi, ['address', 'data'])
    const u = { msi: { ...splitAddress(address), data: u32('data', data) } }
    return new IrqRoutingEntry({ gsi, type: KVM_IRQ_ROUTING_MSI, u }).bytes
  }
  const { irqchip, pin } = checkOptions('route', route, ['gsi', 'irqchip', 'pin'])
  const target = { irqchip: irqchips.indexOf(checkOneOf('irqchip', irqchip, irqchips)), pin: u32('pin', pin) }
  return new IrqRoutingEntry({ gsi, type: KVM_IRQ_ROUTING_IRQCHIP, u: { irqchip: target } }).bytes
}

/** @internal */
export function setGsiRouting(vm: NativeVm, routes: readonly GsiRoute[]): void {
  const entries = checkList('routes', routes).map(routeEntry)
  const argument = new Uint8Array(8 + entries.length * IrqRoutingEntry.size)
  new DataView(argument.buffer).setUint32(0, entries.length, true)
  entries.forEach((entry, place) => argument.set(entry, 8 + place * IrqRoutingEntry.size))
  const result = vm.ioctlCounted(KVM_SET_GSI_ROUTING.number, argument)
  if (result < 0) throw ioctlError(KVM_SET_GSI_ROUTING.name, result, `routing ${entries.length} interrupts`, noIrqchip)
}

/** Of {@link Vm.irqfd}. */
export interface IrqfdOptions {
  /** The global system interrupt it raises: where that leads, setGsiRouting() says. */
  gsi: number
  /** A level-triggered line: KVM lowers it at the guest's end of interrupt, and `'event'` says so, for a device that still wants it. */
  resample?: boolean
}

const flags = { deassign: KVM_IRQFD_FLAG_DEASSIGN, resample: KVM_IRQFD_FLAG_RESAMPLE }

/** @internal */
export let makeIrqfd: (vm: NativeVm, options: IrqfdOptions, onClose: () => void) => Irqfd

/**
 * A device's interrupt line that any thread of the process can raise without a vCPU leaving the guest: KVM_IRQFD. Made by {@link Vm.irqfd}.
 * @example
 * using machine = kvm.createVm()
 * machine.createIrqchip()
 * using line = machine.irqfd({ gsi: 5 })
 * line.trigger()
 */
export class Irqfd extends EventSource {
  readonly gsi: number
  readonly #vm: NativeVm
  readonly #eventfd: NativeDescriptor
  readonly #resample: NativeDescriptor | undefined
  readonly #request: InstanceType<typeof Request>

  static {
    fixParent(Irqfd)
    makeIrqfd = (...given) => new Irqfd(ours, ...given)
  }

  private constructor(key: symbol, vm: NativeVm, options: IrqfdOptions, onClose: () => void) {
    super(key, onClose)
    const { gsi, resample = false } = checkOptions('options', options, ['gsi', 'resample'])
    checkBoolean('resample', resample)
    this.gsi = u32('gsi', gsi)
    this.#vm = vm
    this.#eventfd = createEventfd()
    try {
      this.#resample = resample ? createEventfd() : undefined
      if (this.#resample) listen(this, this.#resample)
      this.#request = new Request({
        fd: this.#eventfd.fd,
        gsi,
        flags: resample ? flags.resample : 0,
        resamplefd: this.#resample?.fd ?? 0
      })
      // Last: from here on the line is raised.
      const result = vm.ioctl(KVM_IRQFD.number, this.#request.bytes)
      if (result < 0) throw ioctlError(KVM_IRQFD.name, result, `an irqfd for GSI ${gsi}`, noIrqchip, { gsi })
    } catch (error) {
      unlisten(this)
      this.#eventfd.close()
      this.#resample?.close()
      throw error
    }
  }

  /** Whether close() was called, here or on the VM. */
  get closed(): boolean {
    return this.#eventfd.fd < 0
  }

  /** Raises the interrupt. Raised twice before the guest takes it, it comes once. */
  trigger(): void {
    if (this.closed) throw new KvmError('closed', `the irqfd of GSI ${this.gsi} is closed`)
    signalEventfd(this.#eventfd)
  }

  /** The line is nobody's any more. A second call does nothing. */
  override close(): void {
    if (this.closed) return
    this.#request.flags = flags.deassign
    if (this.#vm.fd >= 0) this.#vm.ioctl(KVM_IRQFD.number, this.#request.bytes)
    this.#eventfd.close()
    this.#resample?.close()
    super.close()
  }
}
