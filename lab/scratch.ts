/** Folders of runs, each named after the process that it belongs to. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const prefix = 'node-kvm-lab-'

/** A process number comes again; together with the start time it does not. Null when there is no such process. */
function identify(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return afterName[0] === 'Z' ? null : `${pid} ${afterName[19]}`
  } catch {
    return null
  }
}

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
