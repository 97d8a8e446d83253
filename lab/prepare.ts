/** Everything that a run in a lane needs and that runs share. */
import { prepareBochs, prepareCd } from './bochs.js'
import { type Boot, baseDisk, bootFiles } from './images.js'
import type { Kernel, Lane } from './lanes.js'
import type { Progress } from './progress.js'
import { modulesDisk } from './project.js'
import { prepareQemu } from './qemu.js'

export interface Prepared extends Boot {
  base: string
  modules: string
}

export async function prepare(lane: Lane, kernel: Kernel, project: string, progress: Progress): Promise<Prepared> {
  progress.say(`preparing ${lane.emulator === 'bochs' ? 'Bochs' : 'QEMU'}`)
  await (lane.emulator === 'bochs' ? prepareBochs : prepareQemu)()
  progress.say(`preparing Linux ${kernel.version}`)
  const boot = await bootFiles(kernel)
  if (lane.emulator === 'bochs') await prepareCd(boot)
  progress.say('preparing the disks')
  return { ...boot, base: await baseDisk(), modules: await modulesDisk(project) }
}
