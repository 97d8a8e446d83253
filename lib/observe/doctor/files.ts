/** Lists folders of /proc and /sys. */
import { readdirSync } from 'node:fs'

/** Returns the sorted names in a folder, or none if it does not exist or cannot be read. */
export function namesIn(path: string): string[] {
  try {
    return readdirSync(path).sort()
  } catch {
    return []
  }
}
