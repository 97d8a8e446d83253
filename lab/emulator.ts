/** The interface that both emulators implement. */
import type { Machine } from './machine.js'
import type { Images, Start } from './run-folder.js'

/** Choices that only Bochs has. */
export interface Choices {
  /** Whether its screen may listen on this machine's network. */
  screenOnNetwork?: boolean
}

/** A machine boots cold, boots in order to be saved, or goes on from its saved state. */
export type Purpose = 'run' | 'save' | 'restore'

export interface Emulator {
  name: string
  /** Downloads and builds what it needs. */
  prepare(boot: Pick<Images, 'kernel' | 'initramfs'>): Promise<void>
  start(images: Images, purpose: Purpose, choices?: Choices): Promise<Start>
  /** Saves the state of a machine, which was started for that purpose, into the folder `state`; the machine ends. */
  save(machine: Machine): Promise<void>
}
