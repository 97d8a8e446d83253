import { release } from 'node:os'

/** For behaviour that older kernels got wrong: each use says which. */
export function kernelIsAtLeast(major: number, minor: number): boolean {
  const [hereMajor = 0, hereMinor = 0] = release().split('.').map(Number)
  return hereMajor > major || (hereMajor === major && hereMinor >= minor)
}
