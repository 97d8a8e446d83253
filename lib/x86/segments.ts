/** Segments of a 64-bit guest and their descriptor tables (Intel SDM volume 3, chapters 3 and 8). */
import type { Gpa } from '../abi/addresses.js'
import { Segment } from './registers.js'

// Segment types with the accessed bit set, as VT-x requires for a valid guest state (SDM volume 3, 27.3.1.2).
export const codeType = 11
export const dataType = 3
export const busyTaskState = 11
export const localTableType = 2

/** The selectors of the table that putDescriptorTables() writes. */
export const selectors = { kernelCode: 0x08, kernelData: 0x10, userData: 0x1b, userCode: 0x23, task: 0x28 }

// GDT, TSS and I/O bitmap, one after the other. The bitmap has one bit for each of the 65,536 ports, 0 if CPL 3 may use the port, and a byte of
// ones at its end (SDM volume 1, 19.5.2). Hardware does not look at the bitmap if IOPL is 3, but software that emulates the processor does.
export const globalTableLimit = 0x37
export const taskStateOffset = 0x100
const taskStateSize = 104
const bitmapOffsetField = 102
const bitmapSize = 65_536 / 8 + 1
export const taskStateLimit = taskStateSize + bitmapSize - 1
/** The size of all three, in bytes. */
export const descriptorTablesSize = taskStateOffset + taskStateLimit + 1

/** Makes a segment of 4 GiB that begins at 0. */
export const flatSegment = (values: ConstructorParameters<typeof Segment>[0]) =>
  new Segment({ limit: 0xffff_ffff, present: 1, s: 1, g: 1, ...values })
/** Uses the same segment for all data segment registers. */
export const dataSegments = (segment: Segment) => ({ ds: segment, es: segment, fs: segment, gs: segment, ss: segment })

/** Writes GDT, TSS and I/O bitmap; their first byte will be at `gpa`. */
export function putDescriptorTables(bytes: Uint8Array, gpa: Gpa): void {
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, 7)
  words.set([
    0n,
    0x00af_9b00_0000_ffffn,
    0x00cf_9300_0000_ffffn,
    0x00cf_f300_0000_ffffn,
    0x00af_fb00_0000_ffffn,
    ...taskDescriptor(gpa + taskStateOffset)
  ])
  bytes[taskStateOffset + bitmapOffsetField] = taskStateSize
  bytes[taskStateOffset + taskStateLimit] = 0xff
}

/** Makes the descriptor of a busy 64-bit TSS, which has 16 bytes (SDM volume 3, 8.2.3). */
function taskDescriptor(base: number): [bigint, bigint] {
  const address = BigInt(base)
  const low = BigInt(taskStateLimit) | ((address & 0xff_ffffn) << 16n) | (0x8bn << 40n) | (((address >> 24n) & 0xffn) << 56n)
  return [low, address >> 32n]
}
