/** The package that is copied into the guest, and the disks that carry it. */
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { entry } from './cache.js'
import { diskSize, makeDisk } from './disk.js'
import { runScript, statusName } from './guest.js'
import type { Lane } from './lanes.js'
import { type Library, libraries } from './libraries.js'

/** The nearest folder with a package.json; if there is none, node-kvm's own. */
export function findProject(from = process.cwd()): string {
  for (let folder = from; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder
    if (folder === dirname(folder)) return fileURLToPath(new URL('../..', import.meta.url))
  }
}

const leftOut = new Set(['node_modules', '.git', 'coverage'])

/** Of build folders, only the add-ons are copied. */
function isWanted(project: string, path: string): boolean {
  const parts = relative(project, path).split(sep)
  if (leftOut.has(basename(path)) || relative(project, path) === join('docs', 'api')) return false
  if (!/^build(-|$)/.test(parts[0] ?? '')) return true
  return parts[0] === 'build' && (parts.length === 1 || (parts.length === 2 && parts[1] === 'Release') || path.endsWith('.node'))
}

function addOns(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((item) => item.isFile() && item.name.endsWith('.node'))
    .map((item) => join(item.parentPath ?? item.path, item.name))
}

async function fillModules(from: string, root: string): Promise<void> {
  mkdirSync(join(root, 'libraries'), { recursive: true })
  if (!from) return
  cpSync(from, join(root, 'node_modules'), { recursive: true, verbatimSymlinks: true })
  for (const name of ['.vite', '.vite-temp']) mkdirSync(join(root, 'node_modules', name), { recursive: true })
  const needed: Library[] = await libraries(addOns(from))
  // The C library's own parts come with Node.
  for (const { path } of needed.filter((one) => !/^(lib(c|m|dl|rt|pthread)|ld-linux)\b/.test(basename(one.path))))
    cpSync(realpathSync(path), join(root, 'libraries', basename(path)))
}

/** The disk with all of the package's node_modules, so that the package can run there whatever it can run here. */
export async function modulesDisk(project: string): Promise<string> {
  const place = join(project, 'node_modules')
  const from = existsSync(place) ? realpathSync(place) : ''
  const lock = join(from, '.package-lock.json')
  // npm writes this list anew whenever it changes the folder.
  const content = from && existsSync(lock) ? readFileSync(lock, 'utf8') : from && String(statSync(from).mtimeMs)
  const made = await entry('modules', { from, content, form: 2 }, async (target) => {
    const root = join(target, 'root')
    await fillModules(from, root)
    await makeDisk(join(target, 'modules.img'), root, { label: 'lab-modules' })
    rmSync(root, { recursive: true })
  })
  return join(made, 'modules.img')
}

export interface RunDisk {
  project: string
  command: readonly string[]
  environment: Record<string, string>
}

/** Puts the content of a run's disk into the folder: the package, and the command to run in it. */
export function fillRun(folder: string, { project, command: words, environment }: RunDisk): void {
  cpSync(project, join(folder, 'package'), { recursive: true, verbatimSymlinks: true, filter: (path) => isWanted(project, path) })
  writeFileSync(join(folder, 'run'), runScript(words, environment))
  writeFileSync(join(folder, statusName), ' '.repeat(8))
}

/** The room for the results. */
const spare = { spareMiB: 256 }
export const runDiskSize = (folder: string) => diskSize(folder, spare)

/** Makes the disk of one run, with the settings that the guest reads at its start. */
export async function runDisk(image: string, folder: string, lane: Lane): Promise<void> {
  const settings = {
    KVM_MODULE: lane.module,
    KVM_ARGUMENTS: lane.kvmArguments,
    MODULE_ARGUMENTS: lane.moduleArguments,
    NOW: Math.ceil(Date.now() / 1000)
  }
  const lines = Object.entries(settings).map(([name, value]) => `${name}='${value}'\n`)
  writeFileSync(join(folder, 'settings'), lines.join(''))
  writeFileSync(join(folder, 'random'), randomBytes(64))
  await makeDisk(image, folder, { label: 'lab-run', ...spare })
}
