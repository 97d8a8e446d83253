/** Prepares everything that a run in a lane needs and that runs share. */
import { bochs } from './bochs.js'
import type { Emulator } from './emulator.js'
import { baseDisk, bootFiles } from './images.js'
import type { Kernel, Lane } from './lanes.js'
import type { Progress } from './progress.js'
import { modulesDisk } from './project.js'
import { qemu } from './qemu.js'
import type { Images } from './run-folder.js'

export const emulators: Record<Lane['emulator'], Emulator> = { bochs, qemu }

export async function prepare(lane: Lane, kernel: Kernel, project: string, progress: Progress): Promise<Images> {
  const emulator = emulators[lane.emulator]
  progress.say(`preparing Linux ${kernel.version}`)
  const boot = await bootFiles(kernel)
  progress.say(`preparing ${emulator.name}`)
  await emulator.prepare(boot)
  progress.say('preparing the disks')
  return { ...boot, base: await baseDisk(), modules: await modulesDisk(project) }
}
