/**
 * Which pages changed since the last look, whoever changed them: what the guest wrote by KVM's dirty log (api.rst 4.8, 4.117, 8.29), and what
 * this library wrote by a log of its own, since KVM's does not see it.
 */

import { inspect } from 'node:util'
import type { Gpa } from '../abi/addresses.js'
import { argumentError, checkAddress, checkInteger, checkOneOf, checkOptions, checkSize, pageSize } from '../abi/arguments.js'
import { errnoName, KvmError } from '../abi/errors.js'
import { capabilities } from '../abi/generated/capabilities.js'
import { KVM_CHECK_EXTENSION, KVM_ENABLE_CAP, KVM_RESET_DIRTY_RINGS } from '../abi/generated/requests.js'
import { kvm_dirty_gfn, kvm_enable_cap } from '../abi/generated/structures.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { Causes, Handle } from '../abi/ioctls.js'
import type { NativeVm, NativeWriteRecorder } from '../abi/native.js'
import { shown } from '../abi/text.js'
import { heldRegionOf, type Mapping } from './mapping.js'
import { type Memslot, recordOf } from './memslot.js'
import { PageSet } from './page-set.js'
import type { SlotTable } from './slot-table.js'

/** How KVM keeps its log; what {@link DirtyLog.collect} gives is the same. */
export type DirtyLogMode =
  /** A bitmap for each memslot, cleared and protected again when it is read. */
  | 'bitmap'
  /** The same, protected again by a call of its own (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2): shorter times under KVM's lock. */
  | 'manual'
  /** A ring for each vCPU: its cost grows with the pages written, not with the memory. A full ring is an exit, `dirty-ring-full`. */
  | 'ring'

/** Of {@link Vm.dirtyLog}. */
export interface DirtyLogOptions {
  /** 'bitmap' if absent. 'ring' must be chosen before the first vCPU. */
  mode?: DirtyLogMode
  /** Entries of each vCPU's ring, 16 bytes each, a power of two; 65536 if absent. KVM keeps some of them in reserve. */
  ringEntries?: number
}

/** Guest-physical addresses within one memslot. */
export interface DirtyRange {
  gpa: Gpa
  /** Bytes, whole pages. */
  size: number
}

const manualProtect = capabilities.MANUAL_DIRTY_LOG_PROTECT2
const ringCapabilities = [capabilities.DIRTY_LOG_RING_ACQ_REL, capabilities.DIRTY_LOG_RING]
// A ring, once enabled, is the VM's only log.
const withRings = new WeakSet<NativeVm>()

interface Logged {
  slot: Memslot
  /** The change that left it as it was adopted, by number (native/core/memslots.h): after any other nobody knows what its log has missed. */
  changed: number
  pages: PageSet
  /** Whether logging was turned on here, to be turned off again. */
  turnedOn: boolean
  /** Which memory is behind it, and the number of its first page there. */
  memory: number
  first: number
  /** Other slots over some of the same pages. */
  aliases: Logged[]
}

/** @internal The VM as its dirty log sees it. */
export interface DirtyLogHost {
  native: NativeVm
  handle: Handle
  /** Whether this environment has vCPUs of it. */
  hasVcpus(): boolean
}

const harvestCauses: Causes = {
  EOVERFLOW:
    'KVM wrote past the end of a full ring, and pages are lost (a host that emulates guest code may do that); use another mode, or more ringEntries'
}

/** @internal */
export let makeDirtyLog: (vm: DirtyLogHost, memslots: SlotTable, options: DirtyLogOptions) => DirtyLog

/**
 * The dirty log of a VM. Made by {@link Vm.dirtyLog}; one at a time.
 *
 * A page that was never told of counts as dirty, so that the first collect() has all of memory, and a loop of collect and copy yields an
 * exact copy once the guest has stopped. So does a memslot that was created or changed meanwhile. Memory that stands
 * behind several memslots, by one mapping or by several of one file, is told of at each of its GPAs. Writes through a live `buffer`, and of
 * other VMs and processes to shared files, are not seen: tell of them by {@link mark}.
 * @example
 * using machine = kvm.createVm()
 * machine.memslots.create({ gpa: 0, mapping })
 * using log = machine.dirtyLog()
 * for (const { gpa, size } of log.collect()) machine.memory.read(gpa, size)
 */
export class DirtyLog implements Disposable {
  readonly mode: DirtyLogMode
  readonly #host: DirtyLogHost
  readonly #vm: NativeVm
  readonly #memslots: SlotTable
  readonly #logged = new Map<number, Logged>()
  readonly #recorders = new Map<Mapping, NativeWriteRecorder>()
  #closed = false

  static {
    makeDirtyLog = (...given) => new DirtyLog(ours, ...given)
  }

  private constructor(key: symbol, host: DirtyLogHost, memslots: SlotTable, options: DirtyLogOptions) {
    checkOurs(key, 'a DirtyLog', 'dirtyLog() of a Vm')
    const { mode = 'bitmap', ringEntries = 65536 } = checkOptions('options', options, ['mode', 'ringEntries'])
    this.mode = checkOneOf('mode', mode, ['bitmap', 'manual', 'ring'])
    this.#host = host
    this.#vm = host.native
    this.#memslots = memslots
    this.#prepare(checkInteger('ringEntries', ringEntries, 1, 2 ** 24))
    try {
      this.#adopt()
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Whether close() was called, here or on the VM. */
  get closed(): boolean {
    return this.#closed
  }

  #prepare(ringEntries: number): void {
    if (this.mode === 'ring') enableRing(this.#host, ringEntries)
    else if (withRings.has(this.#vm)) throw argumentError('mode', this.mode, "'ring': this VM's log is a ring, for its whole life")
    else if (this.mode === 'manual') setManualProtect(this.#host.handle, 1n)
  }

  // Logging first, then everything is dirty: what is written in between is copied with the rest.
  #adopt(): void {
    this.#memslots.refuseInTransaction()
    const before = this.#logged.size
    let adopted = 0
    for (const slot of this.#memslots) {
      const known = this.#logged.get(slot.id)
      if (known && isAsAdopted(known, slot) && this.#recorders.has(slot.mapping)) continue
      // Whatever fails from here on: close() turns off what was turned on, and what is not as adopted is adopted anew.
      const logged = loggedOf(slot, !slot.logDirty || (known?.slot === slot && known.turnedOn))
      this.#logged.set(slot.id, logged)
      if (!slot.logDirty) setLogging(slot, true)
      if (slot.deleted) continue
      // Another environment may have given it other memory, or another size, before that.
      if (covers(logged, slot)) logged.changed = recordOf(slot).changed
      else this.#logged.set(slot.id, loggedOf(slot, logged.turnedOn))
      if (!this.#recorders.has(slot.mapping)) this.#recorders.set(slot.mapping, recorderOf(slot.mapping))
      adopted++
    }
    for (const [id, { slot }] of this.#logged) if (slot.deleted || this.#memslots.lookup(slot.gpa) !== slot) this.#logged.delete(id)
    if (adopted === 0 && this.#logged.size === before) return
    link([...this.#logged.values()])
    this.#forgetMappings()
  }

  #tell({ pages, first, aliases }: Logged, page: number, count: number): void {
    pages.addRun(page, count)
    for (const alias of aliases) alias.pages.addRun(page + first - alias.first, count)
  }

  #forgetMappings(): void {
    const used = new Set([...this.#logged.values()].map(({ slot }) => slot.mapping))
    for (const [mapping, recorder] of this.#recorders)
      if (!used.has(mapping)) {
        recorder.close()
        this.#recorders.delete(mapping)
      }
  }

  /**
   * The pages that changed since the last call, as ranges by ascending GPA. Copy them after this call: a page written meanwhile comes again.
   * @throws KvmError `closed`; `state` inside a transaction of the memslots, as the other methods
   */
  collect(): DirtyRange[] {
    this.harvest()
    const ranges: DirtyRange[] = []
    const logged = [...this.#logged.values()].map(({ slot: { gpa }, pages }) => ({ gpa, pages }))
    for (const { gpa, pages } of logged.sort((one, other) => one.gpa - other.gpa)) {
      for (const { first, count } of pages.runs()) ranges.push({ gpa: gpa + first * pageSize, size: count * pageSize })
      pages.clear()
    }
    return ranges
  }

  /** Takes over what KVM has, for the next collect(): what a vCPU needs to go on after a `dirty-ring-full` exit. */
  harvest(): void {
    if (this.#closed) throw new KvmError('closed', 'this dirty log is closed')
    this.#adopt()
    if (this.mode === 'ring') this.#takeRings()
    else for (const logged of this.#logged.values()) this.#takeBitmap(logged)
    for (const [mapping, recorder] of this.#recorders) this.#takeOwnWrites(mapping, recorder)
  }

  #takeBitmap(logged: Logged): void {
    const { slot, pages, aliases } = logged
    // One that another environment changed since it was adopted, which this table may know by now, is all dirty in the next collect().
    const bitmap = isAsAdopted(logged, slot) ? this.#memslots.dirtyLogOf(slot) : null
    if (bitmap === null) return
    if (this.mode === 'manual' && bitmap.some((byte) => byte !== 0)) this.#memslots.clearDirtyLogOf(slot, bitmap, 0)
    if (aliases.length === 0) pages.add(bitmap)
    else for (const { first, count } of PageSet.of(bitmap).runs()) this.#tell(logged, first, count)
  }

  #takeRings(): void {
    const pairs = this.#vm.harvestDirtyRings()
    if (typeof pairs === 'number') throw this.#host.handle.refused(KVM_RESET_DIRTY_RINGS, pairs, 'harvesting the dirty rings', harvestCauses)
    // An entry may be of a slot that is gone, and its number another's by now: then that one has a page too many.
    for (let at = 0; at < pairs.length; at += 2) {
      const logged = this.#logged.get(pairs[at]!)
      if (logged) this.#tell(logged, pairs[at + 1]!, 1)
    }
  }

  // A recorder hears of what was written by way of any mapping of its memory.
  #takeOwnWrites(mapping: Mapping, recorder: NativeWriteRecorder): void {
    const written = new PageSet(mapping.size / pageSize)
    recorder.collect(written.bytes)
    for (const { first, count } of written.runs())
      for (const { slot, pages } of this.#logged.values()) if (slot.mapping === mapping) pages.addRun(first - slot.offset / pageSize, count)
  }

  /** Pages that changed in a way that neither KVM nor the library saw: by a live buffer, say. */
  mark(gpa: Gpa, size: number): void {
    if (this.#closed) throw new KvmError('closed', 'this dirty log is closed')
    checkAddress('gpa', gpa)
    checkSize('size', size)
    this.#adopt()
    for (const logged of this.#logged.values()) {
      const { slot } = logged
      const first = Math.max(0, Math.floor((gpa - slot.gpa) / pageSize))
      const end = Math.min(slot.size / pageSize, Math.ceil((gpa + size - slot.gpa) / pageSize))
      if (first < end) this.#tell(logged, first, end - first)
    }
  }

  /** Ends it: slots that were not logged before are not any more. A second call does nothing. */
  close(): void {
    if (this.#closed) return
    this.#memslots.refuseInTransaction()
    this.#closed = true
    for (const recorder of this.#recorders.values()) recorder.close()
    this.#stopLogging()
  }

  #stopLogging(): void {
    if (this.#vm.fd < 0) return
    for (const { slot, turnedOn } of this.#logged.values()) if (turnedOn && !slot.deleted) setLogging(slot, false)
    if (this.mode === 'manual') setManualProtect(this.#host.handle, 0n)
  }

  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('DirtyLog', { mode: this.mode, closed: this.#closed })
  }
}

/** Another environment may delete it meanwhile. */
function setLogging(slot: Memslot, logDirty: boolean): void {
  try {
    slot.setFlags({ logDirty })
  } catch (error) {
    if (!slot.deleted) throw error
  }
}

/** What is adopted keeps a log, unless it was changed since. */
const isAsAdopted = ({ slot, changed }: Logged, now: Memslot) => slot === now && changed === recordOf(now).changed && now.logDirty

/** Which memory, and which of its pages. */
function memoryOf(slot: Memslot) {
  const [memory, offset] = heldRegionOf(slot.mapping).memory
  return { memory, first: (offset + slot.offset) / pageSize, count: slot.size / pageSize }
}

function loggedOf(slot: Memslot, turnedOn: boolean): Logged {
  const { memory, first, count } = memoryOf(slot)
  return { slot, changed: recordOf(slot).changed, pages: new PageSet(count).fill(), turnedOn, memory, first, aliases: [] }
}

function covers(logged: Logged, slot: Memslot): boolean {
  const { memory, first, count } = memoryOf(slot)
  return logged.memory === memory && logged.first === first && logged.pages.size === count
}

/** Finds which slots stand over the same pages: in the order of the memory, each can overlap those only that have not ended before it. */
function link(all: Logged[]): void {
  const endOf = ({ slot, first }: Logged) => first + slot.size / pageSize
  let open: Logged[] = []
  for (const one of all.sort((left, right) => left.memory - right.memory || left.first - right.first)) {
    one.aliases = open = open.filter((other) => other.memory === one.memory && endOf(other) > one.first)
    for (const other of open) other.aliases = [...other.aliases, one]
    open = [...open, one]
  }
}

function recorderOf(mapping: Mapping): NativeWriteRecorder {
  const recorder = heldRegionOf(mapping).recordWrites()
  if (typeof recorder === 'number') throw new KvmError('memory', `recording writes: ${errnoName(recorder)}`, { errno: errnoName(recorder) })
  return recorder
}

function setManualProtect(handle: Handle, value: bigint): void {
  const { bytes } = new kvm_enable_cap({ cap: manualProtect, args: [value, 0n, 0n, 0n] })
  const lacks = () => handle.send(KVM_CHECK_EXTENSION, manualProtect) <= 0
  handle.plain(KVM_ENABLE_CAP, "beginning a dirty log with mode 'manual'", bytes, {
    EINVAL: () => (lacks() ? 'this host lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2' : undefined)
  })
}

// The younger capability says how entries are published; on x86-64 both are the same (api.rst 8.29).
function enableRing({ native, handle, hasVcpus }: DirtyLogHost, entries: number): void {
  const mostBytes = (number: number) => handle.plain(KVM_CHECK_EXTENSION, 'asking for its dirty rings', number)
  const capability = ringCapabilities.find((number) => mostBytes(number) > 0)
  if (capability === undefined) throw new KvmError('unavailable', 'this host has no dirty ring (KVM_CAP_DIRTY_LOG_RING); use bitmap or manual')
  const most = mostBytes(capability) / kvm_dirty_gfn.size
  if (!Number.isInteger(Math.log2(entries)) || entries > most) throw argumentError('ringEntries', entries, `a power of two up to ${most}`)
  const result = native.enableDirtyRing(capability, entries * kvm_dirty_gfn.size)
  if (result < 0)
    throw handle.refused(KVM_ENABLE_CAP, result, `enabling dirty rings of ${entries} entries`, { EINVAL: () => whyNoRing(native, hasVcpus()) })
  withRings.add(native)
}

// kvm_vm_ioctl_enable_dirty_log_ring() has these causes, and one more that nobody tells: a ring must be larger than what KVM keeps in reserve.
function whyNoRing(native: NativeVm, hasVcpus: boolean): string | undefined {
  if (hasVcpus) return 'they must be enabled before the first vCPU'
  return withRings.has(native) ? 'this VM has them already, for its whole life' : undefined
}
