/** Writes that KVM queues instead of leaving the guest: KVM_REGISTER_COALESCED_MMIO (api.rst 4.116). */
import { argumentError, checkAddress, checkInteger, checkOptions, checkSize, hex } from '../abi/arguments.js'
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

/** @internal the ranges of one VM. The ring is one for all its vCPUs: what any of them wrote comes with whoever drains. */
export class Coalescing {
  readonly #vm: NativeVm
  readonly #zones: CoalescedZone[] = []
  readonly #entries = new Uint8Array(170 * CoalescedEntry.size)

  constructor(vm: NativeVm) {
    this.#vm = vm
  }

  add(range: CoalescedRange, handler: CoalescedHandler): CoalescedZone {
    const { port, gpa, size } = checkOptions('range', range, ['port', 'gpa', 'size'])
    if ((port === undefined) === (gpa === undefined)) throw argumentError('port', port, 'given, or else gpa')
    if (typeof handler !== 'function') throw argumentError('handler', typeof handler, 'a function')
    const addr = port === undefined ? checkAddress('gpa', gpa) : checkInteger('port', port, 0, 0xffff)
    const request = new Request({ addr, size: checkSize('size', size), pio: port === undefined ? 0 : 1 })
    const result = this.#vm.ioctl(KVM_REGISTER_COALESCED_MMIO.number, request.bytes)
    if (result < 0)
      throw ioctlError(
        KVM_REGISTER_COALESCED_MMIO.name,
        result,
        `coalescing ${size} at ${port === undefined ? 'gpa' : 'port'} ${hex(addr)}`,
        'a VM has room for about 200 ranges; ports need KVM_CAP_COALESCED_PIO'
      )
    const zone = new CoalescedZone(this, request, handler)
    this.#zones.push(zone)
    return zone
  }

  remove(zone: CoalescedZone): void {
    const place = this.#zones.indexOf(zone)
    if (place < 0) return
    if (this.#vm.fd >= 0) this.#vm.ioctl(KVM_UNREGISTER_COALESCED_MMIO.number, zone.request.bytes)
    this.drain()
    this.#zones.splice(place, 1)
  }

  /** Every write that waits, in the guest's order: those of one range that follow on each other come in one call. */
  drain(): void {
    const count = this.#vm.drainCoalesced(this.#entries)
    let zone: CoalescedZone | undefined
    let writes: CoalescedWrite[] = []
    for (let index = 0; index < count; index++) {
      const { phys_addr: address, len, pio, data } = CoalescedEntry.over(this.#entries.subarray(index * CoalescedEntry.size))
      const owner = this.#ownerOf(address, pio)
      if (owner !== zone) {
        deliver(zone, writes)
        zone = owner
        writes = []
      }
      writes.push({ address, data: data.slice(0, Math.min(len, 8)) })
    }
    deliver(zone, writes)
  }

  #ownerOf(address: number, pio: number): CoalescedZone | undefined {
    return this.#zones.find(({ request: { addr, size, pio: ports } }) => ports === pio && address >= addr && address < addr + size)
  }
}

// The exit that made this call must still reach its own caller: what a handler throws goes where a listener's error would.
function deliver(zone: CoalescedZone | undefined, writes: readonly CoalescedWrite[]): void {
  if (writes.length === 0) return
  try {
    if (!zone) throw new KvmError('argument', `${writes.length} coalesced writes at ${hex(writes[0]!.address)}, which no range of this thread covers`)
    zone.handler(writes)
  } catch (error) {
    throwLater(error)
  }
}
