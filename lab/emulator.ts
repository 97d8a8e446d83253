/** What an emulator must be told, and what it must tell: the same for both. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

/** The images of one run. All but the run's own are shared between runs and never written. */
export interface Images {
  kernel: string
  initramfs: string
  base: string
  run: string
  modules: string
}

/** A command line. */
export interface Start {
  words: string[]
  env: NodeJS.ProcessEnv
}

/** Files in the folder of a run. */
export const files = { console: 'console', output: 'output', emulator: 'emulator.log' }

export const kernelArguments = (bus: string) =>
  `console=ttyS0,115200 quiet nokaslr mitigations=off random.trust_cpu=on cryptomgr.notests tsc=reliable panic=-1 lab.bus=${bus}`

/** The last lines that the guest or, where it said nothing, the emulator left. */
export function lastWords(folder: string, lines = 15): string {
  for (const name of [files.console, files.emulator]) {
    const path = join(folder, name)
    const text = existsSync(path) ? stripVTControlCharacters(readFileSync(path, 'utf8')).replaceAll('\r', '').trim() : ''
    const said = text.split('\n').filter((line) => line && !line.startsWith('@@lab '))
    if (said.length > 0)
      return said
        .slice(-lines)
        .map((line) => `  ${line}`)
        .join('\n')
  }
  return '  (nothing)'
}
