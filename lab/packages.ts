/**
 * Debian packages by name. They are downloaded with apt and unpacked into the cache, but never installed. apt gets a state of its own, so that this
 * machine's lists and settings stay as they are, and no root is needed. This machine's apt tells where the packages come from.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cacheFolder, entry } from './cache.js'
import { command } from './command.js'
import { LabError } from './errors.js'
import type { Suite } from './lanes.js'
import { acquire } from './lock.js'

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'
const dayMs = 86_400_000

/** The address of the Debian mirror that this machine's apt uses. */
async function findMirror(): Promise<string> {
  const named = process.env['NODE_KVM_LAB_MIRROR']
  if (named) return named
  const targets = await command('apt-get', ['indextargets', '--format', '$(LABEL) $(COMPONENT) $(REPO_URI)', 'Created-By: Packages'], { from: 'apt' })
  // On a machine that never fetched its lists the targets have no labels, but the addresses that apt would fetch name the mirror, too.
  const mirror =
    /^Debian main (\S+)$/m.exec(targets)?.[1] ??
    /'(\S+\/)dists\/(?:bookworm|trixie)\/InRelease'/.exec(await command('apt-get', ['update', '--print-uris'], { from: 'apt' }))?.[1]
  if (!mirror)
    throw new LabError(
      "this machine's apt has no Debian mirror (the kernels and emulators are Debian's); set NODE_KVM_LAB_MIRROR to the address of one"
    )
  return mirror
}

/** The lab reaches the network as this machine does, for example through a proxy. */
async function networkSettings(): Promise<string> {
  const settings = await command('apt-config', ['dump', '--no-empty', '--format', '%F "%v";%n', 'Acquire'], { from: 'apt' })
  return settings
    .split('\n')
    .filter((line) => !line.includes('IndexTargets') && !/Languages/.test(line))
    .join('\n')
}

async function writeSettings(folder: string, suite: string): Promise<void> {
  for (const name of ['lists/partial', 'archives/partial']) mkdirSync(join(folder, name), { recursive: true })
  if (!existsSync(keyring))
    throw new LabError(`the keys of Debian's archive are not on this machine (${keyring}); sudo apt-get install debian-archive-keyring installs them`)
  writeFileSync(join(folder, 'status'), '')
  writeFileSync(join(folder, 'sources.list'), `deb [signed-by=${keyring}] ${await findMirror()} ${suite} main\n`)
  const places = Object.entries({
    State: folder,
    'State::lists': join(folder, 'lists'),
    'State::status': join(folder, 'status'),
    Cache: folder,
    'Etc::sourcelist': join(folder, 'sources.list')
  })
  const none = ['main', 'parts', 'sourceparts', 'preferences', 'preferencesparts']
  const lines = [
    await networkSettings(),
    ...places.map(([name, path]) => `Dir::${name} "${path}";`),
    ...none.map((name) => `Dir::Etc::${name} "/dev/null";`),
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    'APT::Install-Recommends "false";',
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";'
  ]
  writeFileSync(join(folder, 'apt.conf'), `${lines.join('\n')}\n`)
}

/** A state of apt that knows one release. Its lists are fetched once a day. */
export async function aptState(suite: Suite | 'trixie-backports'): Promise<NodeJS.ProcessEnv> {
  const folder = join(cacheFolder(), `apt-${suite}`)
  const stamp = join(folder, 'updated')
  const env = { ...process.env, APT_CONFIG: join(folder, 'apt.conf') }
  const release = await acquire(`${folder}.lock`)
  try {
    if (existsSync(stamp) && Date.now() - statSync(stamp).mtimeMs < dayMs) return env
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder)
    await writeSettings(folder, suite)
    await command('apt-get', ['update', '-q', '--error-on=any'], { env, from: 'apt' })
    writeFileSync(stamp, '')
  } finally {
    release()
  }
  return env
}

async function unpack(archives: string, root: string): Promise<void> {
  mkdirSync(root)
  const files = readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .sort()
  for (const file of files) await command('dpkg', ['-x', join(archives, file), root])
  // This records the versions of the packages: images made from them depend on it.
  writeFileSync(join(root, '..', 'versions.json'), JSON.stringify(files))
  rmSync(archives, { recursive: true })
}

/** The content of the packages, without their dependencies. */
export function packages(suite: Suite, names: readonly string[]): Promise<string> {
  return entry('packages', { suite, names, form: 1 }, async (folder) => {
    const env = await aptState(suite)
    const archives = join(folder, 'archives')
    mkdirSync(archives)
    await command('apt-get', ['download', '-q', ...names], { env, cwd: archives, from: 'apt' })
    await unpack(archives, join(folder, 'root'))
  })
}

/** The content of the packages and of all their dependencies, down to the C library: programs of another release, which run by their own loader. */
export function packagesWithLibraries(suite: Suite, names: readonly string[]): Promise<string> {
  return entry('programs', { suite, names, form: 1 }, async (folder) => {
    const env = await aptState(suite)
    const archives = join(folder, 'archives')
    mkdirSync(join(archives, 'partial'), { recursive: true })
    await command(
      'apt-get',
      ['install', '--download-only', '-y', '-q', '-o', `Dir::Cache::archives=${archives}`, '-o', 'Debug::NoLocking=1', ...names],
      { env, from: 'apt' }
    )
    await unpack(archives, join(folder, 'root'))
  })
}

/** The newest image for which a metapackage stands. */
export async function kernelPackage(suite: Suite, metapackage: string): Promise<string> {
  const found = await entry('kernel-name', { suite, metapackage, form: 1 }, async (folder) => {
    const answer = await command('apt-cache', ['depends', metapackage], { env: await aptState(suite), from: 'apt' })
    const name = /Depends: (linux-image-\S+)/.exec(answer)?.[1]
    if (!name) throw new LabError(`${metapackage} of ${suite} names no kernel image`)
    writeFileSync(join(folder, 'name'), name)
  })
  return readFileSync(join(found, 'name'), 'utf8')
}

const libraryFolders = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'usr/lib', 'lib']
const loaderPlaces = ['usr/lib64', 'lib64', 'usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((folder) => `${folder}/ld-linux-x86-64.so.2`)

/** The beginning of a command line that runs an unpacked program with the libraries that were unpacked with it. */
export function unpackedProgram(folder: string, program: string): string[] {
  const root = join(folder, 'root')
  const loader = loaderPlaces.map((place) => join(root, place)).find(existsSync)
  if (!loader || !existsSync(join(root, program)))
    throw new LabError(`${program} is not in ${root}; remove that folder and run node-kvm lab prepare again`)
  const extra = readdirSync(join(root, 'usr/lib/x86_64-linux-gnu'))
    .filter((name) => name === 'pulseaudio')
    .map((name) => `usr/lib/x86_64-linux-gnu/${name}`)
  return [loader, '--library-path', [...libraryFolders, ...extra].map((place) => join(root, place)).join(':'), join(root, program)]
}
