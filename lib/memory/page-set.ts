/** A set of page numbers in the layout of KVM_GET_DIRTY_LOG: one bit per page, in whole 64-bit words. */
import { zeroed } from '../abi/exhausted.js'

/** @internal Holds numbers below `size`, and ignores others. */
export class PageSet {
  readonly #size: number
  readonly #words: Uint32Array<ArrayBuffer>

  constructor(size: number) {
    this.#size = size
    this.#words = new Uint32Array(zeroed(Math.ceil(size / 64) * 8).buffer)
  }

  /** Takes over the bits of a bitmap, which has whole 64-bit words. */
  static of(bitmap: Uint8Array): PageSet {
    const pages = new PageSet(bitmap.byteLength * 8)
    pages.add(bitmap)
    return pages
  }

  get size(): number {
    return this.#size
  }
  /** The same bits as bytes, for the add-on to fill. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer)
  }

  fill(): this {
    this.addRun(0, this.#size)
    return this
  }
  clear(): void {
    this.#words.fill(0)
  }

  add(bitmap: Uint8Array): void {
    const words = new Uint32Array(bitmap.buffer, bitmap.byteOffset, bitmap.byteLength / 4)
    for (let at = 0; at < words.length; at++) this.#words[at]! |= words[at]!
  }

  addPage(page: number): void {
    if (page >= 0 && page < this.#size) this.#words[page >>> 5]! |= 1 << (page & 31)
  }

  addRun(first: number, count: number): void {
    const end = Math.min(first + count, this.#size)
    for (let page = Math.max(first, 0); page < end; ) {
      if ((page & 31) === 0 && end - page >= 32) {
        this.#words[page >>> 5] = 0xffff_ffff
        page += 32
      } else this.addPage(page++)
    }
  }

  /** Yields the longest runs of neighbouring pages, in ascending order. */
  *runs(): Generator<{ first: number; count: number }> {
    let first = -1
    for (let page = 0; page <= this.#size; page++) {
      // Words that are all ones or all zeros are passed over at once.
      const word = this.#words[page >>> 5] ?? 0
      if ((page & 31) === 0 && page + 32 <= this.#size && word === (first < 0 ? 0 : 0xffff_ffff)) {
        page += 31
        continue
      }
      const isIn = page < this.#size && ((word >>> (page & 31)) & 1) === 1
      if (isIn && first < 0) first = page
      else if (!isIn && first >= 0) {
        yield { first, count: page - first }
        first = -1
      }
    }
  }
}
