/** Kernel modules in the order in which they must be inserted. A package has no modules.dep, but each module itself says which modules it needs. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { command } from './command.js'
import { LabError } from './errors.js'

const plain = (name: string) => name.replaceAll('-', '_')

function walk(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((item) =>
    item.isDirectory() ? walk(join(folder, item.name)) : item.name.includes('.ko') ? [join(folder, item.name)] : []
  )
}

export class Modules {
  readonly #files = new Map<string, string>()
  readonly #builtIn: Set<string>
  readonly #busybox: string
  readonly #loaded = new Map<string, Buffer>()

  /** @param root the unpacked kernel package */
  constructor(root: string, busybox: string) {
    this.#busybox = busybox
    const parent = ['lib/modules', 'usr/lib/modules'].map((place) => join(root, place)).find(existsSync)
    const release = parent && readdirSync(parent)[0]
    if (!release) throw new LabError(`there are no kernel modules in ${root}`)
    const folder = join(parent, release)
    for (const path of walk(folder)) this.#files.set(plain(basename(path).replace(/\.ko.*/, '')), path)
    this.#builtIn = new Set(
      readFileSync(join(folder, 'modules.builtin'), 'utf8')
        .split('\n')
        .map((line) => plain(basename(line).replace('.ko', '')))
    )
  }

  /** Decompresses the module, by busybox, since not every machine has xz. */
  async #load(name: string, scratch: string): Promise<Buffer> {
    const path = this.#files.get(name)
    if (!path) throw new LabError(`this kernel has no module ${name}`)
    const known = this.#loaded.get(name)
    if (known) return known
    let data = readFileSync(path)
    if (!path.endsWith('.ko')) {
      const copy = join(scratch, basename(path))
      writeFileSync(copy, data)
      await command(this.#busybox, ['unxz', '-f', copy])
      data = readFileSync(copy.replace(/\.xz$/, ''))
    }
    this.#loaded.set(name, data)
    return data
  }

  /** Returns the modules to insert for one of them, which comes last. */
  async order(name: string, scratch: string, done: string[] = []): Promise<string[]> {
    const own = plain(name)
    if (this.#builtIn.has(own) || done.includes(own)) return done
    const needs = /(?:^|\0)depends=([^\0]*)\0/.exec((await this.#load(own, scratch)).toString('latin1'))?.[1] ?? ''
    for (const need of needs.split(',').filter(Boolean)) await this.order(need, scratch, done)
    done.push(own)
    return done
  }

  data(name: string): Buffer {
    return this.#loaded.get(name) as Buffer
  }
}
