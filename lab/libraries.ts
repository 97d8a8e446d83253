/** The shared libraries that programs and add-ons of this machine need, as ldd finds them. */
import { copyFileSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { command } from './command.js'
import { LabError } from './errors.js'

/** A library's place, and what tells one version of it from another. */
export interface Library {
  path: string
  version: string
}

/** What tells a file from another at the same place. */
export function stamp(path: string): string {
  const { size, mtimeMs } = statSync(path)
  return `${path} ${size} ${Math.round(mtimeMs)}`
}

export function findProgram(name: string): string | null {
  const found = (process.env['PATH'] ?? '').split(':').map((folder) => join(folder, name)).find(existsSync)
  return found ? realpathSync(found) : null
}

async function ask(path: string): Promise<string[]> {
  let answer: string
  try {
    answer = await command('ldd', [path], { from: 'libc-bin' })
  } catch (error) {
    // Not for this machine: an add-on for another C library, say. A missing ldd is another matter.
    if (error instanceof LabError && error.message.includes('ended with')) return []
    throw error
  }
  return answer.split('\n').flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? [])
}

export async function libraries(files: readonly string[]): Promise<Library[]> {
  const found = await Promise.all(files.map(ask))
  return [...new Set(found.flat())].sort().map((path) => ({ path, version: stamp(path) }))
}

/** Under the same path as here. */
export function copyLibraries(needed: readonly Library[], root: string): void {
  for (const { path } of needed) {
    mkdirSync(join(root, dirname(path)), { recursive: true })
    copyFileSync(path, join(root, path))
  }
}
