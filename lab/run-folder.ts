/** The folder in which an emulator runs: its files, and how the emulator is started there. */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

/** The images that runs share and never write to. */
export interface Images {
  kernel: string
  initramfs: string
  base: string
  modules: string
}

/** An emulator's command line, and the files that it reads in the folder in which it is started. All paths of a run are relative to that folder. */
export interface Start {
  words: string[]
  env: NodeJS.ProcessEnv
  files: Record<string, string>
  /** Whether its standard input and output are a monitor that takes commands. */
  monitor?: boolean
  /** The beginning of a command line that gives it a network of its own, if it needs one. */
  network?: readonly string[]
}

/** The files in the folder of a run. */
export const files = {
  console: 'console',
  output: 'output',
  emulator: 'emulator.log',
  base: 'base.img',
  run: 'run.img',
  modules: 'modules.img',
  state: 'state'
}

export const kernelArguments = (bus: string) =>
  `console=ttyS0,115200 quiet nokaslr mitigations=off random.trust_cpu=on cryptomgr.notests tsc=reliable panic=-1 lab.bus=${bus}`

/** The end of a file, at most 64 KiB: the guest may have written without end. */
function endOf(path: string): string {
  const fd = openSync(path, 'r')
  const end = Buffer.alloc(65_536)
  try {
    return end.toString('utf8', 0, readSync(fd, end, 0, end.length, Math.max(0, fstatSync(fd).size - end.length)))
  } finally {
    closeSync(fd)
  }
}

/** The last lines of the guest's output or, if there are none, of the emulator's. */
export function lastWords(folder: string, lines = 15): string {
  for (const name of [files.console, files.emulator]) {
    const path = join(folder, name)
    // After a restore, Bochs goes on writing at the position where the file ended when the state was saved: before it are nulls.
    const text = existsSync(path)
      ? stripVTControlCharacters(endOf(path))
          .replaceAll(/[\r\0]/g, '')
          .trim()
      : ''
    const said = text.split('\n').filter((line) => line && !line.startsWith('@@lab '))
    if (said.length > 0)
      return said
        .slice(-lines)
        .map((line) => `  ${line}`)
        .join('\n')
  }
  return '  (nothing)'
}
