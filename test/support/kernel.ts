import { release } from 'node:os'

/** For what kernels did wrongly before: each use says what. */
export function kernelIsAtLeast(major: number, minor: number): boolean {
  const [hereMajor = 0, hereMinor = 0] = release().split('.').map(Number)
  return hereMajor > major || (hereMajor === major && hereMinor >= minor)
}
