/** KVM's own counters, from the binary statistics descriptor: KVM_GET_STATS_FD (api.rst 4.131). */
import { inspect } from 'node:util'
import { argumentError } from '../abi/arguments.js'
import { errnoText, KvmError } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import {
  KVM_STATS_BASE_MASK,
  KVM_STATS_BASE_SHIFT,
  KVM_STATS_TYPE_MASK,
  KVM_STATS_TYPE_SHIFT,
  KVM_STATS_UNIT_MASK,
  KVM_STATS_UNIT_SHIFT
} from '../abi/generated/constants.js'
import { KVM_GET_STATS_FD } from '../abi/generated/requests.js'
import { kvm_stats_desc, kvm_stats_header } from '../abi/generated/structures.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { Handle } from '../abi/ioctls.js'
import type { NativeDescriptor } from '../abi/native.js'
import { shown } from '../abi/text.js'

const types = ['cumulative', 'instant', 'peak', 'linear-histogram', 'log-histogram'] as const
const units = ['none', 'bytes', 'seconds', 'cycles', 'boolean'] as const
const bases = ['power-of-10', 'power-of-2'] as const

/** One statistic, as the kernel describes it. */
export interface StatisticDescriptor {
  name: string
  type: (typeof types)[number]
  unit: (typeof units)[number]
  /** The unit of a value is `unit` times `base` to the power of `exponent`. */
  base: (typeof bases)[number]
  exponent: number
  /** The number of 64-bit values: 1, or the number of buckets of a histogram. */
  size: number
  /** The offset from the start of the data, in bytes. */
  offset: number
  /** The width of a bucket, for a linear histogram. */
  bucketSize: number
}

/** The offsets of the parts of the descriptor's file, in bytes. */
export interface StatisticsLayout {
  nameSize: number
  count: number
  idOffset: number
  descriptorsOffset: number
  dataOffset: number
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

/** The available statistics, as the kernel describes them. */
export interface StatisticsDescription {
  /** The owner's name: `kvm-1234` or `kvm-1234/vcpu-0`. */
  id: string
  descriptors: readonly StatisticDescriptor[]
  layout: StatisticsLayout
}

/** The descriptor's file, once it is open. */
interface Opened extends StatisticsDescription {
  file: NativeDescriptor
  /** The bytes of all values together. */
  dataSize: number
}

/** @internal */
export let makeStatistics: (owner: NativeDescriptor, handle: Handle) => Statistics

/**
 * The statistics of a VM or a vCPU. Kernels differ in the statistics they have: the object lists them once, when they are first asked for. While
 * a vCPU runs, its statistics can be read but not opened.
 * @example
 * vm.stats.read()['pages_4k']
 * vm.stats.read('remote_tlb_flush')
 */
export class Statistics implements Disposable {
  readonly #owner: NativeDescriptor
  readonly #handle: Handle
  #opened: Opened | undefined
  #closed = false

  static {
    makeStatistics = (...given) => new Statistics(ours, ...given)
  }

  private constructor(key: symbol, owner: NativeDescriptor, handle: Handle) {
    checkOurs(key, 'a Statistics', 'stats of a Vm or a Vcpu')
    this.#owner = owner
    this.#handle = handle
  }

  #open(): Opened {
    if (this.#closed) throw new KvmError('closed', `the statistics of ${this.#handle.name} are closed`)
    return (this.#opened ??= this.#openFile())
  }

  #openFile(): Opened {
    this.#handle.checkOpen()
    const file = making(() => this.#owner.openStatistics())
    if (typeof file === 'number') throw this.#handle.refused(KVM_GET_STATS_FD, file, 'opening its statistics')
    try {
      return enumerate(file)
    } catch (error) {
      file.close()
      throw error
    }
  }

  /**
   * Describes the statistics, without their values.
   * @throws KvmError `unavailable` on kernels before 5.14, `busy` if the vCPU runs and its statistics are not open yet, `closed`
   */
  describe(): StatisticsDescription {
    const { id, descriptors, layout } = this.#open()
    return { id, descriptors, layout }
  }

  /** Returns all values by name: numbers, exact below 2^53, or an array of buckets for a histogram. */
  read(): Record<string, number | number[]>
  /** Returns one value, or undefined if this kernel has no such statistic. */
  read(name: string): number | number[] | undefined
  read(name?: string): Record<string, number | number[]> | number | number[] | undefined {
    if (name !== undefined && typeof name !== 'string') throw argumentError('name', name, 'a string')
    const { file, descriptors, dataSize, layout } = this.#open()
    if (name === undefined) {
      const data = fill(file, new Uint8Array(dataSize), layout.dataOffset)
      return Object.fromEntries(descriptors.map((one) => [one.name, valuesOf(one, new DataView(data.buffer), 0)]))
    }
    const one = descriptors.find((descriptor) => descriptor.name === name)
    if (!one) return undefined
    return valuesOf(one, new DataView(fill(file, new Uint8Array(one.size * 8), layout.dataOffset + one.offset).buffer), one.offset)
  }

  /** Closes the descriptor. A second call does nothing. */
  close(): void {
    this.#closed = true
    this.#opened?.file.close()
  }
  /** Calls close() at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }

  /** What console.log() shows. */
  [inspect.custom](): string {
    return shown('Statistics', { of: this.#handle.name, closed: this.#closed || this.#handle.closed })
  }
}

function fill(file: NativeDescriptor, target: Uint8Array, position: number): Uint8Array {
  const count = file.read(target, position)
  if (count !== target.byteLength)
    throw new KvmError('ioctl', `reading ${target.byteLength} bytes of statistics gave ${count < 0 ? errnoText(count) : `${count} bytes`}`)
  return target
}

function enumerate(file: NativeDescriptor): Opened {
  const header = new kvm_stats_header()
  fill(file, header.bytes, 0)
  const { name_size: nameSize, num_desc: count, id_offset: idOffset, desc_offset: descriptorsOffset, data_offset: dataOffset } = header
  const each = kvm_stats_desc.size + nameSize
  const all = fill(file, new Uint8Array(each * count), descriptorsOffset)
  const descriptors = Array.from({ length: count }, (_, index) => describe(all.subarray(index * each, (index + 1) * each)))
  return {
    file,
    id: text(fill(file, new Uint8Array(nameSize), idOffset)),
    descriptors,
    layout: { nameSize, count, idOffset, descriptorsOffset, dataOffset },
    dataSize: Math.max(0, ...descriptors.map(({ offset, size }) => offset + size * 8))
  }
}

function valuesOf({ offset, size }: StatisticDescriptor, data: DataView, base: number): number | number[] {
  const values = Array.from({ length: size }, (_, index) => Number(data.getBigUint64(offset - base + index * 8, true)))
  return size === 1 ? (values[0] as number) : values
}

function describe(bytes: Uint8Array): StatisticDescriptor {
  const { flags, exponent, size, offset, bucket_size: bucketSize } = kvm_stats_desc.over(bytes)
  const known = <T extends string>(names: readonly T[], index: number) => names[index] ?? (`unknown-${index}` as T)
  return {
    name: text(bytes.subarray(kvm_stats_desc.size)),
    type: known(types, (flags & KVM_STATS_TYPE_MASK) >>> KVM_STATS_TYPE_SHIFT),
    unit: known(units, (flags & KVM_STATS_UNIT_MASK) >>> KVM_STATS_UNIT_SHIFT),
    base: known(bases, (flags & KVM_STATS_BASE_MASK) >>> KVM_STATS_BASE_SHIFT),
    exponent,
    size,
    offset,
    bucketSize
  }
}
