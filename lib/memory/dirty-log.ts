/**
 * Finds the pages that changed since the last look, whoever changed them. KVM's dirty log (api.rst 4.8, 4.117, 8.29) has the writes of the guest.
 * It does not see the writes of this library, so the library keeps a log of these itself.
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

/** How KVM keeps its log. {@link DirtyLog.collect} returns the same in every mode. */
export type DirtyLogMode =
  /** A bitmap for each memslot. Reading it clears it and protects the pages again. */
  | 'bitmap'
  /** The same, but a second call protects the pages again (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), so KVM holds its lock for a shorter time. */
  | 'manual'
  /** A ring for each vCPU. Its cost grows with the pages written, not with the size of memory. A full ring causes the exit `dirty-ring-full`. */
  | 'ring'

/** Options for {@link Vm.dirtyLog}. */
export interface DirtyLogOptions {
  /** The default is 'bitmap'. 'ring' must be chosen before the first vCPU is made. */
  mode?: DirtyLogMode
  /** The number of entries in each vCPU's ring, 16 bytes each: a power of two, by default 65536. KVM keeps some of them in reserve. */
  ringEntries?: number
}

/** A range of guest-physical addresses within one memslot. */
export interface DirtyRange {
  gpa: Gpa
  /** The size in bytes, whole pages. */
  size: number
}

const manualProtect = capabilities.MANUAL_DIRTY_LOG_PROTECT2
const ringCapabilities = [capabilities.DIRTY_LOG_RING_ACQ_REL, capabilities.DIRTY_LOG_RING]
// Once a VM has rings, it can have no other log.
const withRings = new WeakSet<NativeVm>()

interface Logged {
  slot: Memslot
  /**
   * The number of the change that left the slot as it was adopted (native/core/memslots.h). After a later change nobody knows what the log missed.
   */
  changed: number
  pages: PageSet
  /** Whether this log turned logging on, and so must turn it off again. */
  turnedOn: boolean
  /** Identifies the memory behind the slot; `first` is the number of the slot's first page in it. */
  memory: number
  first: number
  /** Other slots that share some of the same pages. */
  aliases: Logged[]
}

/** @internal The parts of a VM that its dirty log needs. */
export interface DirtyLogHost {
  native: NativeVm
  handle: Handle
  /** Whether this environment has vCPUs of the VM. */
  hasVcpus(): boolean
}

const harvestCauses: Causes = {
  EOVERFLOW:
    'KVM wrote past the end of a full ring, and pages are lost (a host that emulates guest code may do that); use another mode, or more ringEntries'
}

/** @internal */
export let makeDirtyLog: (vm: DirtyLogHost, memslots: SlotTable, options: DirtyLogOptions) => DirtyLog

/**
 * The dirty log of a VM. {@link Vm.dirtyLog} makes it; a VM has one at a time.
 *
 * A page counts as dirty until it was returned once. So the first collect() returns all of memory, and a loop of collect and copy yields an exact
 * copy once the guest has stopped. All pages of a memslot that was created or changed meanwhile count as dirty, too. If memory is behind several
 * memslots, by one mapping or by several mappings of one file, a page is returned at each of its GPAs. The log does not see writes through a live
 * `buffer`, nor writes of other VMs and processes to shared files: report them with {@link mark}.
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

  /** Whether close() was called, on this object or on the VM. */
  get closed(): boolean {
    return this.#closed
  }

  #prepare(ringEntries: number): void {
    if (this.mode === 'ring') enableRing(this.#host, ringEntries)
    else if (withRings.has(this.#vm)) throw argumentError('mode', this.mode, "'ring': this VM has dirty rings, which it keeps for its whole life")
    else if (this.mode === 'manual') setManualProtect(this.#host.handle, 1n)
  }

  // Logging is turned on first, and then everything counts as dirty: what the guest writes in between is copied with the rest.
  #adopt(): void {
    this.#memslots.refuseInTransaction()
    const before = this.#logged.size
    let adopted = 0
    for (const slot of this.#memslots) {
      const known = this.#logged.get(slot.id)
      if (known && isAsAdopted(known, slot) && this.#recorders.has(slot.mapping)) continue
      // Whatever fails from here on, close() turns off what was turned on, and slots that are not fully adopted are adopted again.
      const logged = loggedOf(slot, !slot.logDirty || (known?.slot === slot && known.turnedOn))
      this.#logged.set(slot.id, logged)
      if (!slot.logDirty) setLogging(slot, true)
      if (slot.deleted) continue
      // Another environment may have given the slot other memory, or another size, before logging was on.
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
   * Returns the pages that changed since the last call, as ranges in ascending order of GPA. Copy them after this call: a page written meanwhile
   * is returned again by the next one.
   * @throws KvmError `closed`; `state` inside a transaction of the memslots, as all methods do
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

  /** Takes over KVM's log for the next collect(). A vCPU needs this call before it can go on after a `dirty-ring-full` exit. */
  harvest(): void {
    if (this.#closed) throw new KvmError('closed', 'this dirty log is closed')
    this.#adopt()
    if (this.mode === 'ring') this.#takeRings()
    else for (const logged of this.#logged.values()) this.#takeBitmap(logged)
    for (const [mapping, recorder] of this.#recorders) this.#takeOwnWrites(mapping, recorder)
  }

  #takeBitmap(logged: Logged): void {
    const { slot, pages, aliases } = logged
    // If another environment changed the slot since it was adopted, the next collect() returns all of it. This table may know of the change already.
    const bitmap = isAsAdopted(logged, slot) ? this.#memslots.dirtyLogOf(slot) : null
    if (bitmap === null) return
    if (this.mode === 'manual' && bitmap.some((byte) => byte !== 0)) this.#memslots.clearDirtyLogOf(slot, bitmap, 0)
    if (aliases.length === 0) pages.add(bitmap)
    else for (const { first, count } of PageSet.of(bitmap).runs()) this.#tell(logged, first, count)
  }

  #takeRings(): void {
    const pairs = this.#vm.harvestDirtyRings()
    if (typeof pairs === 'number') throw this.#host.handle.refused(KVM_RESET_DIRTY_RINGS, pairs, 'harvesting the dirty rings', harvestCauses)
    // An entry may name a slot that is gone, and its number may belong to another slot by now. That slot then has one dirty page too many.
    for (let at = 0; at < pairs.length; at += 2) {
      const logged = this.#logged.get(pairs[at]!)
      if (logged) this.#tell(logged, pairs[at + 1]!, 1)
    }
  }

  // A recorder sees writes through any mapping of its memory.
  #takeOwnWrites(mapping: Mapping, recorder: NativeWriteRecorder): void {
    const written = new PageSet(mapping.size / pageSize)
    recorder.collect(written.bytes)
    for (const { first, count } of written.runs())
      for (const { slot, pages } of this.#logged.values()) if (slot.mapping === mapping) pages.addRun(first - slot.offset / pageSize, count)
  }

  /** Marks a range as changed when neither KVM nor the library saw the write, for example a write through a live buffer. */
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

  /** Ends the log, and turns logging off for the slots that were not logged before. A second call does nothing. */
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

  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** Returns what console.log() shows. */
  [inspect.custom](): string {
    return shown('DirtyLog', { mode: this.mode, closed: this.#closed })
  }
}

/** Turns logging of a slot on or off; another environment may delete the slot meanwhile. */
function setLogging(slot: Memslot, logDirty: boolean): void {
  try {
    slot.setFlags({ logDirty })
  } catch (error) {
    if (!slot.deleted) throw error
  }
}

/** Whether the log of an adopted slot is complete: the slot was not changed since. */
const isAsAdopted = ({ slot, changed }: Logged, now: Memslot) => slot === now && changed === recordOf(now).changed && now.logDirty

/** Identifies the memory behind a slot, and the slot's first page in it. */
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

/** Finds the slots that share pages. In the order of the memory, a slot can overlap only earlier slots that have not ended before it. */
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

// The newer capability says how entries are published; on x86-64 both behave the same (api.rst 8.29).
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

// The causes are those in kvm_vm_ioctl_enable_dirty_log_ring(). One more cannot be seen: a ring must be larger than KVM's reserve.
function whyNoRing(native: NativeVm, hasVcpus: boolean): string | undefined {
  if (hasVcpus) return 'they must be enabled before the first vCPU'
  return withRings.has(native) ? 'this VM already has them, for its whole life' : undefined
}
