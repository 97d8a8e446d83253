/** Arrays that are not what they seem. */
import { runInNewContext } from 'node:vm'

/** An array whose memory was transferred away. */
export function detached(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}

/** An array that follows the length of its memory, which has shrunk. */
export function tracking(length: number): Uint8Array {
  const memory = new (ArrayBuffer as any)(length, { maxByteLength: length * 2 })
  const bytes = new Uint8Array(memory)
  memory.resize(length >> 1)
  return bytes
}

/** An array of a fixed length that its memory no longer has. */
export function outOfBounds(length: number): Uint8Array {
  const memory = new (ArrayBuffer as any)(length, { maxByteLength: length * 2 })
  const bytes = new Uint8Array(memory, 0, length)
  memory.resize(length >> 1)
  return bytes
}

export function sharedBytes(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length))
}

/** A Uint8Array of another realm, which is one as well, though not by instanceof. */
export function foreign(length: number): Uint8Array {
  return runInNewContext(`new Uint8Array(${length})`)
}

/** An array that claims to be longer than it is. */
export function lying(length: number): Uint8Array {
  const bytes = new Uint8Array(8)
  for (const name of ['length', 'byteLength']) Object.defineProperty(bytes, name, { value: length })
  return bytes
}

/** A list whose length changes while it is read. */
export function shrinking(items: unknown[]): unknown[] {
  return new Proxy(items, {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (name === '0') target.length = 0
      return value
    }
  })
}
