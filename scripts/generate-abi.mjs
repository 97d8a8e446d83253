// Generates the ABI of KVM for TypeScript and C++ from the pinned headers (scripts/abi/pins.mjs).
//   - node scripts/generate-abi.mjs writes the files.
//   - With --check, the committed files must come from this generator; and, if the headers are at hand, generating again must give the same files.
//   - With --check --download, headers that are not at hand are downloaded first.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { programsAreHere } from './abi/compiler.mjs'
import { generate } from './abi/generate.mjs'
import { packages, Unavailable } from './abi/pins.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = ['generate-abi.mjs', ...readdirSync(join(root, 'scripts/abi')).map((name) => `abi/${name}`)].sort()
const sha256 = (...texts) => {
  const hash = createHash('sha256')
  for (const text of texts) hash.update(text)
  return hash.digest('hex')
}
const generator = sha256(...sources.map((name) => readFileSync(join(root, 'scripts', name))))

function fail(message) {
  console.error(`generate-abi: ${message}`)
  process.exit(1)
}

/** The lines that say what a file was made from, with the hash that exposes an edit by hand. */
const head = (body) => `// Made by npm run generate:abi from ${packages.map(({ name, version }) => `${name} ${version}`).join(' and ')}. Do not edit.
// Generator: sha256 ${generator}
// Below: sha256 ${sha256(body)}
`

/** The names of the files that this generator cannot have written as they are. */
function stale(names) {
  return names.filter((name) => {
    const text = readFileSync(join(root, name), 'utf8')
    const body = text.split('\n').slice(3).join('\n')
    return text !== head(body) + body
  })
}

const names = [
  ...['requests', 'structures', 'capabilities', 'exits', 'constants', 'names'].map((name) => `lib/abi/generated/${name}.ts`),
  'native/core/kvm_abi.h',
  'native/core/linux_abi.h'
]

async function make({ mayDownload }) {
  if (!existsSync(join(root, 'dist/lab/packages.js'))) throw new Unavailable('the package is not built, and its lab downloads the headers')
  const { unpacked } = await import('./abi/packages.mjs')
  const bodies = generate(await unpacked({ mayDownload }))
  return new Map(names.map((name, index) => [name, head(bodies[index]) + bodies[index]]))
}

async function check({ mayDownload }) {
  const wrong = stale(names)
  if (wrong.length > 0) fail(`${wrong.join(', ')}: this generator did not make them, or they were edited since; run npm run generate:abi`)
  if (!programsAreHere())
    return console.log('ok: the files come from this generator. They were not made again, because gcc 12 or newer and bpftool are not here')
  const made = await make({ mayDownload }).catch((error) => {
    if (error instanceof Unavailable) return error
    throw error
  })
  if (made instanceof Unavailable) return console.log(`ok: the files come from this generator. They were not made again, because ${made.message}`)
  const different = names.filter((name) => made.get(name) !== readFileSync(join(root, name), 'utf8'))
  if (different.length > 0) fail(`${different.join(', ')}: the headers give something else; run npm run generate:abi`)
  console.log('ok: the files come from this generator, and are the same when made again')
}

const mayDownload = process.argv.includes('--download')
if (process.argv.includes('--check')) await check({ mayDownload })
else
  for (const [name, text] of await make({ mayDownload: true })) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text)
  }
