/** Reads exits as the run left them in the vCPU's area. The answers are taken from the same area. */
import { KVM_EXIT_IO_OUT } from '../../abi/generated/constants.js'
import { exitReasons } from '../../abi/generated/exits.js'
import { kvm_run } from '../../abi/generated/structures.js'
import { MmioAccess, PortRead, PortWrite } from './accesses.js'
import type { Exit, HltExit } from './exits.js'
import { readRareExit } from './rare-exits.js'

// The part of the run page that runs copy: its head with the exit's union, and port data at a fixed place (native/core/run.h).
const areaSize = 4608
const portData = 512

/** Returns the offsets of the fields of a member of the union. */
function placesIn<N extends string>(member: { readonly offsets: Readonly<Record<N, number>> }, union: number): Record<N, number> {
  return Object.fromEntries(Object.entries<number>(member.offsets).map(([name, offset]) => [name, union + offset])) as Record<N, number>
}
const { IO: io, MMIO: mmio, HLT: hlt } = exitReasons
const { direction, size: portSize, port, count } = placesIn(kvm_run.fields.io, kvm_run.offsets.io)
const { phys_addr: gpa, data: mmioData, len, is_write: isWrite } = placesIn(kvm_run.fields.mmio, kvm_run.offsets.mmio)
const mostMmioData = kvm_run.fields.mmio.fields.data.size

/**
 * Reads exits from the vCPU's area, the one place that holds them. Device exits and HLT have one object per vCPU, which is overwritten at each
 * exit, so that the loop "run, look, run" allocates nothing.
 */
export class ExitReader {
  /** The memory that runs copy the exit to, and take the answers from. */
  readonly area = new Uint8Array(areaSize)
  readonly #view = new DataView(this.area.buffer)
  readonly #windows = new Map<number, Uint8Array>()
  #portWindow = this.#window(portData, 1)
  readonly #portWrite = new PortWrite(0, 0, 0, this.#portWindow)
  readonly #portRead = new PortRead(0, 0, 0, this.#portWindow)
  // The address starts as a fraction, so that V8 stores the field as a double from the start: an address above 2^31 then needs no allocation.
  readonly #mmio = new MmioAccess(0.5, false, 0, this.#portWindow)
  readonly #hlt: HltExit = { reason: 'hlt' }
  #run: kvm_run | undefined
  #rare: Exit | undefined

  /** Whether a caller transferred `exit.data.buffer` away, and the area with it. */
  get lost(): boolean {
    // The window is asked, not the area, because each object that is read costs time here.
    return this.#portWindow.length === 0
  }

  /** Reads the exit that the last run copied; `number` is KVM's number for its reason. */
  read(number: number): Exit {
    if (number === io) return this.#readIo()
    if (number === mmio) return this.readMmio()
    if (number === hlt) return this.#hlt
    return this.#readRare(number)
  }

  #window(offset: number, length: number): Uint8Array {
    const key = offset * areaSize + length
    let window = this.#windows.get(key)
    if (!window) this.#windows.set(key, (window = this.area.subarray(offset, offset + length)))
    return window
  }

  #readIo(): PortWrite | PortRead {
    const exit = this.#view.getUint8(direction) === KVM_EXIT_IO_OUT ? this.#portWrite : this.#portRead
    exit.size = this.#view.getUint8(portSize)
    exit.port = this.#view.getUint16(port, true)
    exit.count = this.#view.getUint32(count, true)
    const length = Math.min(exit.size * exit.count, areaSize - portData)
    if (this.#portWindow.length !== length) this.#portWindow = this.#window(portData, length)
    exit.data = this.#portWindow
    return exit
  }

  readMmio(): MmioAccess {
    const exit = this.#mmio
    exit.gpa = this.#view.getUint32(gpa, true) + this.#view.getUint32(gpa + 4, true) * 2 ** 32
    exit.size = this.#view.getUint32(len, true)
    exit.isWrite = this.#view.getUint8(isWrite) !== 0
    exit.data = this.#window(mmioData, Math.min(exit.size, mostMmioData))
    return exit
  }

  #readRare(number: number): Exit {
    const run = (this.#run ??= kvm_run.over(this.area))
    return (this.#rare = readRareExit(run, number, (exit) => exit === this.#rare && !this.lost && run.exit_reason === number))
  }
}
