// The pinned packages, unpacked in the lab's cache and never installed.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { entry } from '../../dist/lab/cache.js'
import { command } from '../../dist/lab/command.js'
import { aptState } from '../../dist/lab/packages.js'
import { packages, suite, Unavailable } from './pins.mjs'

async function download(archives) {
  const env = await aptState(suite)
  const offered = await command('apt-cache', ['madison', ...packages.map(({ name }) => name)], { env, from: 'apt' })
  for (const { name, version } of packages)
    if (!offered.split('\n').some((line) => line.includes(name) && line.split('|')[1]?.trim() === version))
      throw new Unavailable(`the mirror no longer has ${name} ${version}; change scripts/abi/pins.mjs to one of\n${offered}`)
  await command('apt-get', ['download', '-q', ...packages.map(({ name, version }) => `${name}=${version}`)], { env, cwd: archives, from: 'apt' })
}

async function unpack(folder) {
  const archives = join(folder, 'archives')
  mkdirSync(archives)
  await download(archives)
  for (const { name, sha256 } of packages) {
    const file = readdirSync(archives).find((each) => each.startsWith(`${name}_`))
    const found = createHash('sha256')
      .update(readFileSync(join(archives, file)))
      .digest('hex')
    if (found !== sha256) throw new Error(`${file} has the SHA-256 ${found}, but scripts/abi/pins.mjs pins ${sha256}`)
    await command('dpkg', ['-x', join(archives, file), join(folder, 'root')])
  }
  rmSync(archives, { recursive: true })
}

/** Returns the folder of the unpacked packages. */
export async function unpacked({ mayDownload }) {
  const folder = await entry('abi-headers', { packages, form: 1 }, async (path) => {
    if (!mayDownload) throw new Unavailable('the headers were not downloaded before')
    await unpack(path)
  })
  return join(folder, 'root')
}
