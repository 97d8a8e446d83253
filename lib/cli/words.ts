/** How the commands name sizes, tables and entries. */
import { describeHost, type Mmu } from '../abi/host.js'
import type { SecondStage } from '../translation/translate.js'

/** `2 MiB`: in the largest unit that leaves few digits. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let value = count
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`
}

export const shorten = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)

const stageNames: Record<Mmu, string> = { ept: 'EPT', npt: 'NPT', shadow: 'shadow pages', unknown: 'second stage' }

/** What the third table is here. */
export const stageName = (): string => stageNames[describeHost().mmu]

/** `level 1 (4 KiB) rwx AD`: A and D where the processor noted an access and a write. */
export function entryWords({ level, size, access, spte }: SecondStage & { present: true }): string {
  const marks = `${spte.accessed ? 'A' : ''}${spte.dirty ? 'D' : ''}`
  return `level ${level} (${bytes(size)}) ${access}${marks && ` ${marks}`}`
}
