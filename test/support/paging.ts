import { type FaultHandler, KiB } from 'node-kvm'

export const pageSize = 4 * KiB
/** The address at which the tests of demand paging have their memory. */
export const gpa = 0x20_0000

/** The pattern of a page: its number in every word. */
export const patternOf = (page: number) => new Uint8Array(new BigUint64Array(pageSize / 8).fill(wordOf(page)).buffer)
export const wordOf = (page: number) => BigInt(page) * 0x1_0001n + 1n
export const pattern: FaultHandler = ({ offset }) => patternOf(offset / pageSize)
