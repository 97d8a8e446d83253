/** Finds and loads the add-on. If it is missing or does not load, the error gives the command that builds it. */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvmError } from './errors.js'
import { quoted, shorten } from './text.js'

const require = createRequire(import.meta.url)

/** The root of the package, which dist/lib/abi and lib/abi see at different depths. */
const packageRoot = resolve(fileURLToPath(new URL(import.meta.url.includes('/dist/lib/') ? '../../..' : '../..', import.meta.url)))

/** The path in NODE_KVM_ADDON, which selects another build of the add-on, for example the one with sanitizers. */
const otherBuild = process.env['NODE_KVM_ADDON']

type Finder = { resolve(folder: string): string }

/** Returns the path of the add-on's file, and throws if there is none. */
export const addonPath = (): string => otherBuild ?? (require('node-gyp-build') as Finder).resolve(packageRoot)

/**
 * Returns the shell command that compiles the add-on: in the folder where the package is installed, or in its own checkout. If NODE_KVM_ADDON
 * selects another build, it is the command that returns to the usual one.
 */
export function mendingCommand(): string {
  if (otherBuild !== undefined) return 'unset NODE_KVM_ADDON'
  const installed = packageRoot.lastIndexOf(`${sep}node_modules${sep}node-kvm`)
  const [folder, command] =
    installed < 0
      ? [packageRoot, 'npm run build:native']
      : [packageRoot.slice(0, installed), 'npm rebuild node-kvm --ignore-scripts=false --foreground-scripts']
  return `(cd ${quoted(folder)} && ${command})`
}

/**
 * Loads the add-on. ./native.ts describes what it exports.
 * @throws KvmError `unavailable`, in one line. The errors of Node and node-gyp-build say neither what is missing nor what to do
 */
export function loadAddon(): unknown {
  try {
    const path = addonPath()
    refuseCutOff(path)
    return require(path)
  } catch (error) {
    throw unloadable(error as NodeJS.ErrnoException)
  }
}

/**
 * Refuses a file that a full disk or an interrupted linker left short. The dynamic loader would map bytes beyond its end, and the process would
 * die by SIGBUS. The section table is the last thing in an ELF file (elf(5)), so the end of that table is the length that the file must have.
 */
function refuseCutOff(path: string): void {
  const header = new DataView(new ArrayBuffer(64))
  const file = openSync(path, 'r')
  try {
    if (readSync(file, header) < 64 || header.getUint32(0) !== 0x7f454c46) return
    const end = Number(header.getBigUint64(40, true)) + header.getUint16(58, true) * header.getUint16(60, true)
    const { size } = fstatSync(file)
    if (end > size) throw new Error(`${path}: the file ends after ${size} of ${end} bytes`)
  } finally {
    closeSync(file)
  }
}

function unloadable({ code, message }: NodeJS.ErrnoException): KvmError {
  const isAbsent = message.startsWith('No native build was found') || (otherBuild !== undefined && !existsSync(otherBuild))
  // The first line is the dynamic loader's message; a stack of require() calls follows it.
  const reason = isAbsent ? '' : shorten(message.split('\n', 1)[0] as string, 300)
  const what = otherBuild === undefined ? 'the native add-on of node-kvm' : `the native add-on that NODE_KVM_ADDON names (${otherBuild})`
  const remedy = otherBuild === undefined ? 'build it, which needs python3, make and g++' : 'to load the usual one instead'
  return new KvmError(
    'unavailable',
    `${what} ${isAbsent ? 'is missing' : `does not load here: ${reason}`}; ${remedy}: ${mendingCommand()}; npx node-kvm doctor says more`,
    { addon: isAbsent ? 'absent' : 'broken', reason, ...(code === undefined ? {} : { errno: code }) }
  )
}
