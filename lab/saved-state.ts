/** The state of a machine after its boot, before it knows anything of a run. It is saved once, and each later run reads it. */
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { entry } from './cache.js'
import { GuestConsole } from './console.js'
import { blankDisk } from './disk.js'
import type { Choices, Emulator } from './emulator.js'
import { LabError } from './errors.js'
import { follow } from './follow.js'
import { stamp } from './libraries.js'
import { Machine } from './machine.js'
import { files, type Images, lastWords } from './run-folder.js'

/** In seconds, for the boot and the saving. */
const limit = 120
const nobody = { out() {}, err() {} }

interface Options {
  emulator: Emulator
  images: Images
  /** The guest remembers the sizes of its disks. */
  runDiskSize: number
  choices: Choices
}

async function make({ emulator, images, runDiskSize, choices }: Options, target: string): Promise<void> {
  const folder = mkdtempSync(join(target, 'making-'))
  const blank = join(folder, 'blank')
  blankDisk(join(folder, files.run), runDiskSize)
  blankDisk(blank, statSync(images.modules).size)
  const machine = new Machine(await emulator.start(images, 'save', choices), folder, { ...images, modules: blank })
  const screen = new GuestConsole(join(folder, files.console), join(folder, files.output), nobody)
  try {
    await follow(machine, screen, { limit, until: 'ready' })
    if (screen.stage !== 'ready')
      throw new LabError(`${emulator.name} did not boot far enough for its state to be saved. The end of its console:\n${lastWords(folder)}`)
    await emulator.save(machine)
  } finally {
    await machine.stop()
    screen.close()
  }
  for (const name of readdirSync(join(folder, files.state))) renameSync(join(folder, files.state, name), join(target, name))
  rmSync(folder, { recursive: true })
}

/** The folder of the saved state, for this emulator with these settings, this kernel, and this very base disk, which the guest has mounted. */
export async function savedState(options: Options, onMake: () => void): Promise<string> {
  const { emulator, images, runDiskSize, choices } = options
  const { words, files: settings } = await emulator.start(images, 'save', choices)
  const seen = [images.kernel, images.initramfs, images.base].map(stamp)
  return entry('state', { words, settings, seen, sizes: [runDiskSize, statSync(images.modules).size], form: 2 }, async (target) => {
    onMake()
    mkdirSync(target, { recursive: true })
    await make(options, target)
  })
}
