/** The shared libraries that programs and add-ons of this machine need, as ldd finds them. */
import { copyFileSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { command } from './command.js'
import { LabError } from './errors.js'

/** The path of a library, and a stamp that tells its versions apart. */
export interface Library {
  path: string
  version: string
}

/** A stamp that tells a file from another one at the same path. */
export function stamp(path: string): string {
  const { size, mtimeMs } = statSync(path)
  return `${path} ${size} ${Math.round(mtimeMs)}`
}

export function findProgram(name: string): string | null {
  const found = (process.env['PATH'] ?? '')
    .split(':')
    .map((folder) => join(folder, name))
    .find(existsSync)
  return found ? realpathSync(found) : null
}

async function ask(path: string): Promise<string[]> {
  let answer: string
  try {
    answer = await command('ldd', [path], { from: 'libc-bin' })
  } catch (error) {
    // The file is not for this machine: it may be an add-on for another C library, for example. A missing ldd is another matter.
    if (error instanceof LabError && error.message.includes('ended with')) return []
    throw error
  }
  return answer.split('\n').flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? [])
}

export async function libraries(files: readonly string[]): Promise<Library[]> {
  const found = await Promise.all(files.map(ask))
  return [...new Set(found.flat())].sort().map((path) => ({ path, version: stamp(path) }))
}

/** Parts of the C library with which add-ons are linked, and which a newer Node does not need. */
const libcParts = ['libdl.so.2', 'libpthread.so.0', 'librt.so.1', 'libutil.so.1', 'libresolv.so.2', 'libm.so.6']

/** Returns the libraries and, if the C library is among them, all of its parts. */
export function withLibcParts(needed: readonly Library[]): Library[] {
  const libc = needed.find(({ path }) => basename(path) === 'libc.so.6')
  const more = libc
    ? libcParts.map((name) => join(dirname(libc.path), name)).filter((path) => existsSync(path) && !needed.some((one) => one.path === path))
    : []
  return [...needed, ...more.map((path) => ({ path, version: stamp(path) }))]
}

/** Copies the libraries to the same paths below `root`. */
export function copyLibraries(needed: readonly Library[], root: string): void {
  for (const { path } of needed) {
    mkdirSync(join(root, dirname(path)), { recursive: true })
    copyFileSync(path, join(root, path))
  }
}
