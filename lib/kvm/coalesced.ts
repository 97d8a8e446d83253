/** Writes that KVM queues instead of leaving the guest: KVM_REGISTER_COALESCED_MMIO (api.rst 4.116). */
import { AsyncResource } from 'node:async_hooks'
import { argumentError, checkAddress, checkInteger, checkOptions, checkSize, hex, hexRange } from '../abi/arguments.js'
import { ioctlError, KvmError, throwLater } from '../abi/errors.js'
import type { NativeVm } from '../abi/native.js'
import { KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO } from '../abi/requests.js'
import { CoalescedEntry, CoalescedZone as Request } from '../abi/structures.js'

/** Of {@link Vm.coalesce}: ports, or guest-physical addresses, from the first on. */
export interface CoalescedRange {
  /** The first I/O port; or else `gpa`. */
  port?: number
  /** The first guest-physical address, outside every memslot. */
  gpa?: number
  /** How many ports or bytes. */
  size: number
}

/** A write that caused no exit. */
export interface CoalescedWrite {
  /** The port, or the guest-physical address. */
  address: number
  /** The bytes written, copied. */
  data: Uint8Array
}

/** Takes the writes of one range, oldest first. */
export type CoalescedHandler = (writes: readonly CoalescedWrite[]) => void

/** A registered range. Made by {@link Vm.coalesce}. */
export class CoalescedZone implements Disposable {
  readonly #table: Coalescing
  /** @internal */
  readonly request: InstanceType<typeof Request>
  /** @internal */
  readonly handler: CoalescedHandler

  /** @internal */
  constructor(table: Coalescing, request: InstanceType<typeof Request>, handler: CoalescedHandler) {
    this.#table = table
    this.request = request
    this.handler = handler
  }

  /** Delivers now what waits, of every range of the VM: for a guest that goes long without an exit. */
  drain(): void {
    this.#table.drain()
  }

  /** What waits is delivered; from now on each write is an exit. A second call does nothing. */
  close(): void {
    this.#table.remove(this)
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}

/** Writes of one range that follow on each other. */
interface Batch {
  handler: CoalescedHandler
  writes: CoalescedWrite[]
}

/** @internal the ranges of one VM. The ring is one for all its vCPUs: what any of them wrote comes with whoever drains. */
export class Coalescing {
  readonly #vm: NativeVm
  readonly #zones: CoalescedZone[] = []
  readonly #entries = new Uint8Array(170 * CoalescedEntry.size)
  // What was taken out of the ring and no handler was called with yet, oldest first. A handler may run a vCPU, close a range or drain, each of
  // which hands on all that waits before it goes on: so nothing is overtaken, whichever drain() is the one that hands it on.
  readonly #waiting: Batch[] = []

  constructor(vm: NativeVm) {
    this.#vm = vm
  }

  add(range: CoalescedRange, handler: CoalescedHandler): CoalescedZone {
    const { port, gpa, size } = checkOptions('range', range, ['port', 'gpa', 'size'])
    if ((port === undefined) === (gpa === undefined)) throw argumentError('port', port, 'given, or else gpa')
    if (typeof handler !== 'function') throw argumentError('handler', typeof handler, 'a function')
    const addr = port === undefined ? checkAddress('gpa', gpa) : checkInteger('port', port, 0, 0xffff)
    const request = new Request({ addr, size: checkSize('size', size), pio: port === undefined ? 0 : 1 })
    this.#refuseOverlap(request)
    const result = this.#vm.ioctl(KVM_REGISTER_COALESCED_MMIO.number, request.bytes)
    if (result < 0)
      throw ioctlError(
        KVM_REGISTER_COALESCED_MMIO.name,
        result,
        `coalescing ${size} at ${port === undefined ? 'gpa' : 'port'} ${hex(addr)}`,
        'a VM has room for about 200 ranges; ports need KVM_CAP_COALESCED_PIO'
      )
    const zone = new CoalescedZone(this, request, AsyncResource.bind(handler))
    this.#zones.push(zone)
    return zone
  }

  // A write has one owner; and who takes back a range takes from KVM each that covers it (kvm_vm_ioctl_unregister_coalesced_mmio()).
  #refuseOverlap({ addr, size, pio }: InstanceType<typeof Request>): void {
    const hit = this.#zones.find(({ request }) => request.pio === pio && addr < request.addr + request.size && request.addr < addr + size)?.request
    if (hit)
      throw new KvmError('overlap', `${pio ? 'port' : 'gpa'} ${hexRange(addr, size)} overlaps the coalesced range ${hexRange(hit.addr, hit.size)}`)
  }

  remove(zone: CoalescedZone): void {
    if (!this.#zones.includes(zone)) return
    if (this.#vm.fd >= 0) this.#vm.ioctl(KVM_UNREGISTER_COALESCED_MMIO.number, zone.request.bytes)
    // It is the owner of what lies in the ring still, but not of what a handler sees next.
    this.#take()
    this.#zones.splice(this.#zones.indexOf(zone), 1)
    this.#handOn()
  }

  /** With the VM. */
  close(): void {
    for (const zone of [...this.#zones]) this.remove(zone)
  }

  /** Every write that waits, in the guest's order: those of one range that follow on each other come in one call. */
  drain(): void {
    this.#take()
    this.#handOn()
  }

  // Out of the ring, to its owners, before any handler runs.
  #take(): void {
    const count = this.#vm.drainCoalesced(this.#entries)
    let owner: CoalescedZone | undefined
    let writes: CoalescedWrite[] = []
    for (let index = 0; index < count; index++) {
      const { phys_addr: address, len, pio, data } = CoalescedEntry.over(this.#entries.subarray(index * CoalescedEntry.size))
      const zone = this.#ownerOf(address, pio)
      if (index === 0 || zone !== owner) this.#waiting.push({ handler: zone?.handler ?? ownerless, writes: (writes = []) })
      owner = zone
      writes.push({ address, data: data.slice(0, Math.min(len, 8)) })
    }
  }

  // The exit that made this call must still reach its own caller: what a handler throws goes where a listener's error would.
  #handOn(): void {
    for (let batch = this.#waiting.shift(); batch; batch = this.#waiting.shift())
      try {
        batch.handler(batch.writes)
      } catch (error) {
        throwLater(error)
      }
  }

  #ownerOf(address: number, pio: number): CoalescedZone | undefined {
    return this.#zones.find(({ request: { addr, size, pio: ports } }) => ports === pio && address >= addr && address < addr + size)
  }
}

function ownerless(writes: readonly CoalescedWrite[]): void {
  throw new KvmError('argument', `${writes.length} coalesced writes at ${hex(writes[0]!.address)}, which no range of this thread covers`)
}
