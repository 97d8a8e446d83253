/** KVM's own counters by the binary statistics descriptor: KVM_GET_STATS_FD (api.rst 4.131). */
import { errnoName, ioctlError, KvmError } from '../abi/errors.js'
import { making } from '../abi/exhausted.js'
import { checkOurs, ours } from '../abi/internal.js'
import type { NativeDescriptor } from '../abi/native.js'
import { StatsHeader } from '../abi/structures.js'

const types = ['cumulative', 'instant', 'peak', 'linear-histogram', 'log-histogram'] as const
const units = ['none', 'bytes', 'seconds', 'cycles', 'boolean'] as const
const bases = ['power-of-10', 'power-of-2'] as const

/** One statistic, as the kernel describes it. */
export interface StatisticDescriptor {
  name: string
  type: (typeof types)[number]
  unit: (typeof units)[number]
  /** A value counts `unit` times base to the power of `exponent`. */
  base: (typeof bases)[number]
  exponent: number
  /** How many 64-bit values: 1, or the buckets of a histogram. */
  size: number
  /** Bytes from the start of the data. */
  offset: number
  /** Of a linear histogram. */
  bucketSize: number
}

/** Where the parts of the descriptor's file lie, in bytes. */
export interface StatisticsLayout {
  nameSize: number
  count: number
  idOffset: number
  descriptorsOffset: number
  dataOffset: number
}

const fixedPart = 16

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}

/** @internal */
export let statisticsOf: (owner: NativeDescriptor) => Statistics

/**
 * The statistics of a VM or a vCPU. Which there are differs by kernel: they are enumerated once, when this is made.
 * @example
 * vm.stats.read()['pages_4k']
 * vm.stats.read('remote_tlb_flush')
 */
export class Statistics implements Disposable {
  /** `kvm-1234` or `kvm-1234/vcpu-0`. */
  readonly id: string
  readonly descriptors: readonly StatisticDescriptor[]
  readonly layout: StatisticsLayout
  readonly #file: NativeDescriptor
  readonly #dataOffset: number
  readonly #dataSize: number

  static {
    statisticsOf = (owner) => Statistics.#of(owner)
  }

  static #of(owner: NativeDescriptor): Statistics {
    const file = making(() => owner.openStatistics())
    if (typeof file === 'number') throw ioctlError('KVM_GET_STATS_FD', file, 'opening the statistics', 'kernels before 5.14 have none')
    try {
      return new Statistics(ours, file)
    } catch (error) {
      file.close()
      throw error
    }
  }

  private constructor(key: symbol, file: NativeDescriptor) {
    checkOurs(key, 'a Statistics', 'stats of a Vm or a Vcpu')
    this.#file = file
    const header = new StatsHeader()
    this.#fill(header.bytes, 0)
    this.layout = {
      nameSize: header.name_size,
      count: header.num_desc,
      idOffset: header.id_offset,
      descriptorsOffset: header.desc_offset,
      dataOffset: header.data_offset
    }
    this.id = text(this.#fill(new Uint8Array(header.name_size), header.id_offset))
    this.descriptors = this.#enumerate()
    this.#dataOffset = header.data_offset
    this.#dataSize = Math.max(0, ...this.descriptors.map(({ offset, size }) => offset + size * 8))
  }

  #enumerate(): StatisticDescriptor[] {
    const { nameSize, count, descriptorsOffset } = this.layout
    const each = fixedPart + nameSize
    const all = this.#fill(new Uint8Array(each * count), descriptorsOffset)
    return Array.from({ length: count }, (_, index) => describe(all.subarray(index * each, (index + 1) * each)))
  }

  #fill(target: Uint8Array, position: number): Uint8Array {
    if (this.#file.fd < 0) throw new KvmError('closed', `the statistics ${this.id ?? ''} are closed`)
    const count = this.#file.read(target, position)
    if (count !== target.byteLength)
      throw new KvmError('ioctl', `reading ${target.byteLength} bytes of statistics gave ${count < 0 ? errnoName(count) : count}`)
    return target
  }

  #values({ offset, size }: StatisticDescriptor, data: DataView, base: number): number | number[] {
    const values = Array.from({ length: size }, (_, index) => Number(data.getBigUint64(offset - base + index * 8, true)))
    return size === 1 ? (values[0] as number) : values
  }

  /** All values by name: numbers, exact below 2^53, or an array of buckets for a histogram. */
  read(): Record<string, number | number[]>
  /** One value, or undefined where this kernel has no such statistic. */
  read(name: string): number | number[] | undefined
  read(name?: string): Record<string, number | number[]> | number | number[] | undefined {
    const dataOffset = this.#dataOffset
    if (name === undefined) {
      const data = this.#fill(new Uint8Array(this.#dataSize), dataOffset)
      return Object.fromEntries(this.descriptors.map((one) => [one.name, this.#values(one, new DataView(data.buffer), 0)]))
    }
    const one = this.descriptors.find((descriptor) => descriptor.name === name)
    if (!one) return undefined
    return this.#values(one, new DataView(this.#fill(new Uint8Array(one.size * 8), dataOffset + one.offset).buffer), one.offset)
  }

  /** Closes the descriptor; a second call does nothing. */
  close(): void {
    this.#file.close()
  }
  /** close(), at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close()
  }
}

// struct kvm_stats_desc: flags u32, exponent s16, size u16, offset u32, bucket_size u32, name[].
function describe(bytes: Uint8Array): StatisticDescriptor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const flags = view.getUint32(0, true)
  const known = <T extends string>(names: readonly T[], index: number) => names[index] ?? (`unknown-${index}` as T)
  return {
    name: text(bytes.subarray(fixedPart)),
    type: known(types, flags & 15),
    unit: known(units, (flags >> 4) & 15),
    base: known(bases, (flags >> 8) & 15),
    exponent: view.getInt16(4, true),
    size: view.getUint16(6, true),
    offset: view.getUint32(8, true),
    bucketSize: view.getUint32(12, true)
  }
}
