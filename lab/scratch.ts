/** Folders of runs, each named after the process that it belongs to. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify } from './lock.js'

const prefix = 'node-kvm-lab-'

/** What runs left that were killed before they could clean up. */
function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = new RegExp(`^${prefix}(\\d+)-(\\d+)-`).exec(name)
    if (owner && identify(Number(owner[1])) !== `${owner[1]} ${owner[2]}`) rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
}

/** A new folder. */
export function scratchFolder(): string {
  sweep()
  return mkdtempSync(join(tmpdir(), `${prefix}${identify(process.pid)?.replace(' ', '-')}-`))
}
