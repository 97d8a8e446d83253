/** Interrupts that a VMM's devices raise, with the interrupt controllers in the kernel (api.rst 4.24 to 4.26, 4.52, 4.70). */
import { inspect } from 'node:util'
import { checkBoolean, checkInteger, checkList, checkOneOf, checkOptions } from '../../abi/arguments.js'
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_IRQCHIP_IOAPIC,
  KVM_IRQCHIP_PIC_MASTER,
  KVM_IRQCHIP_PIC_SLAVE,
  KVM_PIT_SPEAKER_DUMMY
} from '../../abi/generated/constants.js'
import {
  KVM_CREATE_IRQCHIP,
  KVM_CREATE_PIT2,
  KVM_GET_IRQCHIP,
  KVM_IRQ_LINE,
  KVM_SET_GSI_ROUTING,
  KVM_SIGNAL_MSI
} from '../../abi/generated/requests.js'
import { kvm_irq_level, kvm_irq_routing_entry, kvm_irqchip, kvm_msi, kvm_pit_config } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Causes, Handle } from '../../abi/ioctls.js'
import type { StructInstance } from '../../abi/struct.js'
import type { Capabilities } from '../capabilities.js'
import type { Belongings } from './belongings.js'
import { type Irqfd, type IrqfdOptions, makeIrqfd } from './irqfd.js'

/** A message-signalled interrupt (Intel SDM volume 3, 12.11). */
export interface MsiMessage {
  /** The address that a device would write to: 0xfee00000, with the destination's APIC id from bit 12 on. */
  address: number
  /** The data that a device would write, with the vector in the low byte. */
  data: number
}

/** The destination of a global system interrupt. */
export type GsiRoute = { gsi: number; irqchip: 'pic-master' | 'pic-slave' | 'ioapic'; pin: number } | { gsi: number; msi: MsiMessage }

/** @internal The parts of a VM that its interrupts need. */
export interface InterruptsParts {
  handle: Handle
  capabilities: Capabilities
  belongings: Belongings
}

/** @internal */
export let makeInterrupts: (parts: InterruptsParts) => VmInterrupts

const irqchips = { 'pic-master': KVM_IRQCHIP_PIC_MASTER, 'pic-slave': KVM_IRQCHIP_PIC_SLAVE, ioapic: KVM_IRQCHIP_IOAPIC }
const irqchipNames = Object.keys(irqchips) as (keyof typeof irqchips)[]
const noIrqchip = 'the VM has no interrupt controllers in the kernel; call createIrqchip() before the first vCPU is made'
const u32 = (name: string, value: unknown) => checkInteger(name, value, 0, 0xffff_ffff)

// For each errno, the only reason for which the kernel gives it (arch/x86/kvm/x86.c, irq_comm.c).
const irqchipCauses: Causes = { EEXIST: 'the VM already has them', EINVAL: 'they must be made before the first vCPU' }
const pitCauses: Causes = { EEXIST: 'the VM already has it', ENOENT: 'call createIrqchip() first' }
const lineCauses: Causes = { ENXIO: noIrqchip }
const msiCauses: Causes = { EINVAL: noIrqchip }

/**
 * The interrupt controllers of a VM, and the ways to raise an interrupt: {@link Vm.interrupts}.
 * @example
 * using machine = kvm.createVm()
 * machine.interrupts.createIrqchip()
 * machine.interrupts.setLine(4, true)
 */
export class VmInterrupts {
  readonly #parts: InterruptsParts

  static {
    makeInterrupts = (parts) => new VmInterrupts(ours, parts)
  }

  private constructor(key: symbol, parts: InterruptsParts) {
    checkOurs(key, 'a VmInterrupts', 'createVm() of a Kvm')
    this.#parts = parts
  }

  /**
   * Creates the interrupt controllers in the kernel: two PICs, an IOAPIC and a local APIC for each vCPU (KVM_CREATE_IRQCHIP). Call it before the
   * first vCPU is made. From then on HLT waits for an interrupt inside run() and is no exit.
   */
  createIrqchip(): void {
    this.#parts.handle.plain(KVM_CREATE_IRQCHIP, 'creating the interrupt controllers', undefined, irqchipCauses)
  }

  /**
   * Creates the programmable interval timer in the kernel, at ports 0x40 to 0x43, on GSI 0 (KVM_CREATE_PIT2). Call it after createIrqchip().
   * @param options `speaker` adds port 0x61
   */
  createPit(options: { speaker?: boolean } = {}): void {
    const { speaker = false } = checkOptions('options', options, ['speaker'])
    const { bytes } = new kvm_pit_config({ flags: checkBoolean('speaker', speaker) ? KVM_PIT_SPEAKER_DUMMY : 0 })
    this.#parts.handle.plain(KVM_CREATE_PIT2, 'creating the timer', bytes, pitCauses)
  }

  /** Raises or lowers a line of the interrupt controllers: KVM_IRQ_LINE. */
  setLine(gsi: number, level: boolean): void {
    const { bytes } = new kvm_irq_level({ irq: u32('gsi', gsi), level: checkBoolean('level', level) ? 1 : 0 })
    this.#parts.handle.plain(KVM_IRQ_LINE, `setting GSI ${gsi}`, bytes, lineCauses)
  }

  /** Sends a message-signalled interrupt: KVM_SIGNAL_MSI. Returns false if no vCPU takes it. */
  signalMsi(message: MsiMessage): boolean {
    const { address, data } = checkOptions('message', message, ['address', 'data'])
    const { bytes } = new kvm_msi({ ...splitAddress(address), data: u32('data', data) })
    return this.#parts.handle.plain(KVM_SIGNAL_MSI, 'sending a message-signalled interrupt', bytes, msiCauses) > 0
  }

  /** Replaces the whole table of interrupt destinations: KVM_SET_GSI_ROUTING. At first GSIs 0 to 23 are the pins of the PICs and the IOAPIC. */
  setRouting(routes: Iterable<GsiRoute>): void {
    const entries = checkList('routes', routes).map((route, place) => routeEntry(`routes[${place}]`, route))
    this.#parts.handle.list(KVM_SET_GSI_ROUTING, kvm_irq_routing_entry, entries, `routing ${entries.length} interrupts`, {
      EINVAL: () => this.#missing() ?? this.#tooMany(entries.length, 'routes') ?? this.#tooHigh(entries.map(({ gsi }) => gsi))
    })
  }

  /** Makes an interrupt line that any thread can raise without stopping the guest: KVM_IRQFD. */
  irqfd(options: IrqfdOptions): Irqfd {
    const causesFor = (gsi: number): Causes => ({ EINVAL: () => this.#missing() ?? this.#tooHigh([gsi]) })
    return this.#parts.belongings.keep((onClose) => makeIrqfd(this.#parts.handle, options, causesFor, onClose))
  }

  // Reading a controller changes nothing, and fails with ENXIO if there is none (api.rst 4.26).
  #missing(): string | undefined {
    return this.#parts.handle.send(KVM_GET_IRQCHIP, new kvm_irqchip().bytes) < 0 ? noIrqchip : undefined
  }
  #tooMany(count: number, what: string): string | undefined {
    const most = this.#parts.capabilities.check('IRQ_ROUTING')
    return count > most ? `this host takes at most ${most} ${what}` : undefined
  }
  #tooHigh(gsis: readonly number[]): string | undefined {
    const most = this.#parts.capabilities.check('IRQ_ROUTING')
    const wrong = gsis.find((gsi) => gsi >= most)
    return wrong === undefined ? undefined : `GSI ${wrong} is too high; this host has GSIs below ${most}`
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return this.#parts.handle.shown('VmInterrupts')
  }
}

function splitAddress(address: number): { address_lo: number; address_hi: number } {
  checkInteger('address', address)
  return { address_lo: address % 2 ** 32, address_hi: Math.floor(address / 2 ** 32) }
}

type RoutingEntry = StructInstance<typeof kvm_irq_routing_entry.fields>

function routeEntry(name: string, route: GsiRoute): RoutingEntry {
  checkOptions(name, route as { gsi: number; irqchip?: string; pin?: number; msi?: MsiMessage }, ['gsi', 'irqchip', 'pin', 'msi'])
  const gsi = u32('gsi', route.gsi)
  if ('msi' in route) {
    const { msi } = checkOptions(name, route, ['gsi', 'msi'])
    const { address, data } = checkOptions('msi', msi, ['address', 'data'])
    return new kvm_irq_routing_entry({ gsi, type: KVM_IRQ_ROUTING_MSI, u: { msi: { ...splitAddress(address), data: u32('data', data) } } })
  }
  const { irqchip, pin } = checkOptions(name, route, ['gsi', 'irqchip', 'pin'])
  const target = { irqchip: irqchips[checkOneOf('irqchip', irqchip, irqchipNames)], pin: u32('pin', pin) }
  return new kvm_irq_routing_entry({ gsi, type: KVM_IRQ_ROUTING_IRQCHIP, u: { irqchip: target } })
}
