/** Page tables of a 64-bit guest (Intel SDM volume 3, 4.5). */
import type { Gpa } from '../abi/addresses.js'
import { GiB, MiB, pageSize } from '../abi/arguments.js'

const entriesPerTable = 512
const present = 1n
const writable = 2n
const user = 4n
const largePage = 1n << 7n

/** How many tables putIdentityTables() writes: a PML4, a PDPT, and one page directory per GiB. */
export const identityTableCount = (identityBytes: number) => 2 + identityBytes / GiB

/**
 * Writes tables that map each guest-virtual address to the same guest-physical one, in pages of 2 MiB. The first table is the PML4.
 * @param gpa where the first byte will be, on a page border
 * @param identityBytes how much to map from 0 on, in whole GiB
 */
export function putIdentityTables(bytes: Uint8Array, gpa: Gpa, identityBytes: number, isForUser: boolean): void {
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)
  const flags = present | writable | (isForUser ? user : 0n)
  const point = (table: number) => BigInt(gpa + table * pageSize) | flags
  const entry = (table: number, index: number) => table * entriesPerTable + index
  words[entry(0, 0)] = point(1)
  for (let gib = 0; gib < identityBytes / GiB; gib++) {
    words[entry(1, gib)] = point(2 + gib)
    for (let index = 0; index < entriesPerTable; index++) words[entry(2 + gib, index)] = BigInt(gib * GiB + index * 2 * MiB) | flags | largePage
  }
}
