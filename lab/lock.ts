/** A lock file that names its owner, so that a dead owner's lock can be told from a living one's. */
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { undoAtExit } from './leftovers.js'

/** A process number comes again; together with the start time it does not. Null when there is no such process. */
export function identify(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return afterName[0] === 'Z' ? null : `${pid} ${afterName[19]}`
  } catch {
    return null
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

/** By a link, so that the lock never stands there without its owner's name. */
function take(path: string): boolean {
  const own = `${path}.${process.pid}`
  writeFileSync(own, identify(process.pid) ?? '')
  try {
    linkSync(own, path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  } finally {
    rmSync(own, { force: true })
  }
}

/** Waits for the lock; what comes back lets go of it. */
export async function acquire(path: string): Promise<() => void> {
  while (!take(path)) {
    const owner = read(path)
    if (owner !== null && identify(Number.parseInt(owner, 10)) !== owner) rmSync(path, { force: true })
    else await sleep(100)
  }
  return undoAtExit(() => rmSync(path, { force: true }))
}
