import { closeSync, openSync } from 'node:fs'

/** Makes a call with that many descriptors free, while no more can be had. */
export function withDescriptors<T>(free: number, call: () => T): T {
  const filler: number[] = []
  try {
    for (;;) filler.push(openSync('/dev/null', 'r'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error
  }
  try {
    for (const fd of filler.splice(0, free)) closeSync(fd)
    return call()
  } finally {
    for (const fd of filler) closeSync(fd)
  }
}
