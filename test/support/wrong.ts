/** What a caller may hand in by mistake, or to do harm: values of every kind, of which whoever takes one kind refuses the others. */
import { runInNewContext } from 'node:vm'

/** Looking at it throws, or would change it. */
export const throwing = {
  valueOf() {
    throw new Error('valueOf was called')
  },
  toString() {
    throw new Error('toString was called')
  },
  [Symbol.toPrimitive]() {
    throw new Error('it was converted')
  }
}

/** Bytes whose memory was transferred away. */
export function detached(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}

interface Resizable extends ArrayBuffer {
  resize(length: number): void
}
// What TypeScript's library of this year does not know yet.
const Resizable = ArrayBuffer as unknown as new (length: number, options: { maxByteLength: number }) => Resizable
const resizable = (length: number) => new Resizable(length, { maxByteLength: 2 * length + 2 })

/** Bytes in memory that can be resized. */
export const inResizable = (length: number) => new Uint8Array(resizable(length))

/** Bytes at the end of memory that became smaller. */
export function outOfBounds(length: number): Uint8Array {
  const buffer = resizable(length + 1)
  const bytes = new Uint8Array(buffer, 1, length)
  buffer.resize(length)
  return bytes
}

/** Bytes that several threads can write. */
export const inShared = (length: number) => new Uint8Array(new SharedArrayBuffer(length))

/** A value that Node's own realm did not make. */
export const foreign = <T>(source: string): T => runInNewContext(source) as T

const primitives = [undefined, null, true, false, '', '1', 'x'.repeat(1000), '\x1b[2J', Symbol('1')]
const numbers = [0, 1, -1, -0, 0.5, Number.NaN, Infinity, -Infinity, 2 ** 32, 2 ** 53, 2 ** 64, Number.MAX_VALUE]
const bigints = [0n, 1n, -1n, 2n ** 64n, -(2n ** 63n) - 1n, 2n ** 5000n]
const objects = () => [
  {},
  [],
  [1],
  new Array(3),
  () => 1,
  Object.create(null),
  Object(1),
  Object(1n),
  Object('1'),
  throwing,
  new Proxy({}, {}),
  new Proxy([], {}),
  new Proxy(() => 1, {}),
  { length: 1 },
  { toString: 1 },
  { constructor: undefined },
  new Date(0),
  /1/,
  new Map([[1, 1]]),
  new Set([1]),
  Promise.resolve(1),
  new Error('1'),
  new ArrayBuffer(8),
  new DataView(new ArrayBuffer(8)),
  new Float64Array(2),
  new Uint8Array(1),
  new Uint8Array(3),
  Object.create(Uint8Array.prototype),
  new Proxy(new Uint8Array(8), {}),
  detached(8),
  outOfBounds(8),
  inShared(3),
  foreign('[1, 2]'),
  foreign('({ a: 1 })')
]

/** One of each kind. */
export const everyKind = (): unknown[] => [...primitives, ...numbers, ...bigints, ...objects()]
export const everyButNumbers = (): unknown[] => everyKind().filter((value) => typeof value !== 'number')
export const everyButBigints = (): unknown[] => everyKind().filter((value) => typeof value !== 'bigint')
