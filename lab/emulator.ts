/** What an emulator does, the same for both. */
import type { Machine } from './machine.js'
import type { Images, Start } from './run-folder.js'

/** Choices that only Bochs knows. */
export interface Choices {
  /** Its screen may listen on this machine's network. */
  screenOnNetwork?: boolean
}

/** A machine boots cold, boots in order to be saved, or goes on from its saved state. */
export type Purpose = 'run' | 'save' | 'restore'

export interface Emulator {
  name: string
  /** Downloads and builds what it needs. */
  prepare(boot: Pick<Images, 'kernel' | 'initramfs'>): Promise<void>
  start(images: Images, purpose: Purpose, choices?: Choices): Promise<Start>
  /** Leaves the state of a machine that was started to be saved in the folder `state`; the machine ends. */
  save(machine: Machine): Promise<void>
}
