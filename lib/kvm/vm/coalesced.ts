/** Writes that KVM queues, so that the guest need not leave for each: KVM_REGISTER_COALESCED_MMIO (api.rst 4.116). */
import { AsyncResource } from 'node:async_hooks'
import { inspect } from 'node:util'
import type { Gpa } from '../../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOptions, checkSize, hexRange, pageSize } from '../../abi/arguments.js'
import { errnoName, KvmError, throwLater } from '../../abi/errors.js'
import { KVM_REGISTER_COALESCED_MMIO } from '../../abi/generated/requests.js'
import { kvm_coalesced_mmio, kvm_coalesced_mmio_ring, kvm_coalesced_mmio_zone } from '../../abi/generated/structures.js'
import { checkOurs, ours } from '../../abi/internal.js'
import type { Causes, Handle } from '../../abi/ioctls.js'
import type { NativeVm } from '../../abi/native.js'
import { type ShownParts, shown } from '../../abi/text.js'

/** A range for {@link Vm.coalesce}, of ports or of guest-physical addresses. */
export interface CoalescedRange {
  /** The first I/O port. Give this or `gpa`. */
  port?: number
  /** The first guest-physical address, outside every memslot. */
  gpa?: Gpa
  /** The number of ports or bytes. */
  size: number
}

/** A write that caused no exit. */
export interface CoalescedWrite {
  /** The port, or the guest-physical address. */
  address: number
  /** A copy of the written bytes. */
  data: Uint8Array
}

/**
 * Takes the writes of one range, oldest first. It may run other vCPUs, open and close ranges, and drain. Waiting writes are delivered before such a
 * call goes on, each once and in the guest's order. It is called in the async context of coalesce().
 */
export type CoalescedHandler = (writes: readonly CoalescedWrite[]) => void

let makeZone: (table: Coalescing, range: ShownParts) => CoalescedZone

/** A registered range. {@link Vm.coalesce} makes it. */
export class CoalescedZone implements Disposable {
  readonly #table: Coalescing
  readonly #range: ShownParts

  static {
    makeZone = (...given) => new CoalescedZone(ours, ...given)
  }

  private constructor(key: symbol, table: Coalescing, range: ShownParts) {
    checkOurs(key, 'a CoalescedZone', 'coalesce() of a Vm')
    this.#table = table
    this.#range = range
  }

  /** Delivers now the writes that wait, for every range that this Worker has of the VM. Use it for a guest that runs long without an exit. */
  drain(): void {
    this.#table.drain()
  }

  /** Delivers the writes that wait. From now on each write is an exit. A second call does nothing. */
  close(): void {
    this.#table.remove(this)
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('CoalescedZone', this.#range)
  }
}

const causes: Causes = { ENOSPC: 'a bus of a VM has room for 1000 devices, and it is full' }

/** What a zone consists of. */
interface Registered {
  zone: CoalescedZone
  request: kvm_coalesced_mmio_zone
  handler: CoalescedHandler
}

/** Consecutive writes to one range. */
interface Batch {
  handler: CoalescedHandler
  writes: CoalescedWrite[]
}

/** @internal The ranges of one VM in this environment. All vCPUs share one ring: a drain delivers what any of them wrote there. */
export class Coalescing {
  readonly #vm: NativeVm
  readonly #handle: Handle
  readonly #zones: Registered[] = []
  // The ring is the rest of its page, so this array can hold all its entries.
  readonly #entries = new Uint8Array(pageSize - kvm_coalesced_mmio_ring.size)
  // The writes that were taken from the ring and not yet given to a handler, oldest first. A handler may run a vCPU, close a range or drain. Each of
  // these first delivers all writes that wait, so the order stays right, whichever drain() delivers them.
  readonly #waiting: Batch[] = []

  constructor(vm: NativeVm, handle: Handle) {
    this.#vm = vm
    this.#handle = handle
  }

  add(range: CoalescedRange, handler: CoalescedHandler): CoalescedZone {
    const { port, gpa, size } = checkOptions('range', range, ['port', 'gpa', 'size'])
    if ((port === undefined) === (gpa === undefined)) throw argumentError('port', port, 'given, or else gpa')
    if (typeof handler !== 'function') throw argumentError('handler', handler, 'a function')
    const addr = port === undefined ? checkAddress('gpa', gpa) : checkInteger('port', port, 0, 0xffff)
    checkSize('size', size)
    if (port !== undefined && port + size > 0x1_0000) throw argumentError('size', size, `at most ${0x1_0000 - port}: there are 65536 ports`)
    const request = new kvm_coalesced_mmio_zone({ addr, size, pio: port === undefined ? 0 : 1 })
    // Comes before KVM is asked, because bind() reads properties of the function.
    const bound = AsyncResource.bind(handler, 'KvmCoalescedZone')
    const bus = port === undefined ? 'gpa' : 'port'
    const asked = `coalescing ${bus} ${hexRange(addr, size)}`
    const result = this.#vm.coalesce(request.bytes)
    if (errnoName(result) === 'EEXIST')
      throw new KvmError('overlap', `${asked}: the range overlaps a coalesced range of this VM, in this thread or another`)
    if (result < 0) throw this.#handle.refused(KVM_REGISTER_COALESCED_MMIO, result, asked, causes)
    const zone = makeZone(this, { [bus]: hexRange(addr, size) })
    this.#zones.push({ zone, request, handler: bound })
    return zone
  }

  remove(zone: CoalescedZone): void {
    const registered = this.#zones.find((one) => one.zone === zone)
    if (!registered) return
    this.#sort(this.#vm.uncoalesce(registered.request.bytes, this.#entries))
    this.#zones.splice(this.#zones.indexOf(registered), 1)
    this.#handOn()
  }

  /** Delivers every write that waits, in the guest's order. Consecutive writes to one range come in one call. */
  drain(): void {
    this.#sort(this.#vm.drainCoalesced(this.#entries))
    this.#handOn()
  }

  // The writes moved out of the ring are assigned to their owners before any handler runs.
  #sort(count: number): void {
    let owner: Registered | undefined
    let writes: CoalescedWrite[] = []
    for (let index = 0; index < count; index++) {
      const { phys_addr: address, len, pio, data } = kvm_coalesced_mmio.over(this.#entries.subarray(index * kvm_coalesced_mmio.size))
      const zone = this.#ownerOf(address, pio)
      if (!zone) continue
      if (zone !== owner) this.#waiting.push({ handler: zone.handler, writes: (writes = []) })
      owner = zone
      writes.push({ address, data: data.slice(0, Math.min(len, 8)) })
    }
  }

  // The exit that led to this call must still reach its caller. So a handler's error is thrown later, as a listener's error would be.
  #handOn(): void {
    for (let batch = this.#waiting.shift(); batch; batch = this.#waiting.shift())
      try {
        batch.handler(batch.writes)
      } catch (error) {
        throwLater(error)
      }
  }

  #ownerOf(address: number, pio: number): Registered | undefined {
    return this.#zones.find(({ request: { addr, size, pio: ports } }) => ports === pio && address >= addr && address < addr + size)
  }
}
