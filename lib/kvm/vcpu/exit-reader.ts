/** Exits as the run left them in the vCPU's area, where their answers are taken from. */
import { KVM_EXIT_IO_OUT } from '../../abi/generated/constants.js'
import { exitReasons } from '../../abi/generated/exits.js'
import { kvm_run } from '../../abi/generated/structures.js'
import { MmioAccess, PortRead, PortWrite } from './accesses.js'
import type { Exit, HltExit } from './exits.js'
import { readRareExit } from './rare-exits.js'

// What runs copy of the run page: its head with the exit's union, and port data at a fixed place (native/core/run.h).
const areaSize = 4608
const portData = 512

/** Where the fields of a member of the union lie. */
function placesIn<N extends string>(member: { readonly offsets: Readonly<Record<N, number>> }, union: number): Record<N, number> {
  return Object.fromEntries(Object.entries<number>(member.offsets).map(([name, offset]) => [name, union + offset])) as Record<N, number>
}
const { IO: io, MMIO: mmio, HLT: hlt } = exitReasons
const { direction, size: portSize, port, count } = placesIn(kvm_run.fields.io, kvm_run.offsets.io)
const { phys_addr: gpa, data: mmioData, len, is_write: isWrite } = placesIn(kvm_run.fields.mmio, kvm_run.offsets.mmio)
const mostMmioData = kvm_run.fields.mmio.fields.data.size

/**
 * Reads exits out of the vCPU's area, the one place that holds them. Those of devices and HLT have one object per vCPU, written over at each exit,
 * so that the loop "run, look, run" allocates nothing.
 */
export class ExitReader {
  /** What runs copy the exit to, and answers are taken from. */
  readonly area = new Uint8Array(areaSize)
  readonly #view = new DataView(this.area.buffer)
  readonly #windows = new Map<number, Uint8Array>()
  #portWindow = this.#window(portData, 1)
  readonly #portWrite = new PortWrite(0, 0, 0, this.#portWindow)
  readonly #portRead = new PortRead(0, 0, 0, this.#portWindow)
  // Half a number, so that the field holds a double from the start and an address above 2^31 is stored in place.
  readonly #mmio = new MmioAccess(0.5, false, 0, this.#portWindow)
  readonly #hlt: HltExit = { reason: 'hlt' }
  #run: kvm_run | undefined
  #rare: Exit | undefined

  /** Whether a caller transferred `exit.data.buffer` away, and the area with it. */
  get lost(): boolean {
    // Not asked of the area: each object looked at counts here.
    return this.#portWindow.length === 0
  }

  /** The exit of KVM's number that the vCPU's last run has copied. */
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
