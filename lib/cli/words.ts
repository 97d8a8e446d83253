/** Formats sizes, tables and entries for the commands. */
import { hex } from '../abi/arguments.js'
import { shorten, visible } from '../abi/text.js'
import { describeHost, type Mmu } from '../observe/host.js'
import type { SecondStage } from '../observe/tables/translate.js'
import { paint } from './paint.js'

/** Formats a size in the largest unit that gives few digits: `2 MiB`. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let value = count
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`
}

const stageNames: Record<Mmu, string> = { ept: 'EPT', npt: 'NPT', shadow: 'shadow pages', unknown: 'second stage' }

/** Returns the name of the third table on this host. */
export const stageName = (): string => stageNames[describeHost().mmu]

/** Describes an entry: `level 1 (4 KiB) rwx AD`. A and D mean that the processor recorded an access and a write. */
export function entryWords({ level, size, access, spte }: SecondStage & { present: true }): string {
  const marks = `${spte.accessed ? 'A' : ''}${spte.dirty ? 'D' : ''}`
  return `level ${level} (${bytes(size)}) ${access}${marks && ` ${marks}`}`
}

const addressWidth = 14
/** The width of the column for a table's name. */
export const tableWidth = 17

/** Formats one of the three tables as the thread does: `GPA -> HVA  memslots  0xa000 -> 0x7f31c2a0b000`. `to` is an address, or why there is none. */
export function tableLine(kind: string, table: string, from: number | null, to: number | string, more = ''): string {
  const target = typeof to === 'number' ? hex(to) : to
  const leads = from === null ? '-' : `${hex(from).padEnd(addressWidth)} -> ${more ? target.padEnd(addressWidth) : target}`
  return `${paint('bold', kind)}  ${table.padEnd(tableWidth)} ${leads}${more && `  ${more}`}`
}

/** Counts things: `1 vCPU`, `2 vCPUs`. */
export const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`

/** Returns the command line of another process for a terminal, without the folder of its program. */
export const commandWords = (command: string, most: number) => shorten(visible(command.replace(/^\S*\/(?=\S)/, '')), most)
