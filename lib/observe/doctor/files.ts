/** Folders of /proc and /sys, in which the kernel shows what there is. */
import { readdirSync } from 'node:fs'

/** The names in a folder, in order; none where it is not there or cannot be read. */
export function namesIn(path: string): string[] {
  try {
    return readdirSync(path).sort()
  } catch {
    return []
  }
}
