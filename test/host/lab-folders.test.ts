import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Folder, removeIn } from '../../lab/beneath.js'
import { cacheFolder, entry, runScratch } from '../../lab/cache.js'
import { LabError } from '../../lab/errors.js'
import { scratchFolder } from '../../lab/scratch.js'
import { importable } from '../support/built.js'
import { skip } from '../support/skip.js'

const stranger = 65534
const asRoot = process.getuid?.() === 0
let scratch: string
beforeEach(() => {
  scratch = mkdtempSync(join(realpathSync(tmpdir()), 'node-kvm-folders-'))
  vi.stubEnv('NODE_KVM_LAB_CACHE', join(scratch, 'cache'))
})
afterEach(() => {
  vi.unstubAllEnvs()
  if (scratch) rmSync(scratch, { recursive: true, force: true })
})

/** A folder with content that must not be lost. */
function precious(name = 'precious'): string {
  const folder = join(scratch, name)
  mkdirSync(join(folder, 'below'), { recursive: true })
  writeFileSync(join(folder, 'below', 'file'), 'kept')
  return folder
}
const isKept = (folder: string) => readFileSync(join(folder, 'below', 'file'), 'utf8') === 'kept'

describe('removing', () => {
  test('takes links for what they are, and goes where nobody may write', () => {
    const kept = precious()
    const tree = join(scratch, 'tree')
    mkdirSync(join(tree, 'closed'), { recursive: true })
    symlinkSync(kept, join(tree, 'link'))
    symlinkSync(kept, join(tree, 'closed', 'link'))
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 10])]), '')
    chmodSync(join(tree, 'closed'), 0o500)
    removeIn(scratch, 'tree')
    removeIn(scratch, 'tree')
    symlinkSync(kept, join(scratch, 'itself'))
    removeIn(scratch, 'itself')
    expect(readdirSync(scratch)).toEqual(['precious'])
    expect(isKept(kept)).toBe(true)
  })
  test('of a folder that a stranger swaps for a link once its names are read goes on in the folder', () => {
    const kept = precious()
    const shared = join(scratch, 'shared')
    mkdirSync(join(shared, 'tree', 'below'), { recursive: true })
    writeFileSync(join(shared, 'tree', 'below', 'file'), 'to go')
    // Where other users may write, they may also rename our folder.
    for (const path of [scratch, shared]) chmodSync(path, 0o777)
    const asStranger = asRoot ? ['--reuid', String(stranger), '--regid', String(stranger), '--clear-groups'] : []
    const names = Object.getOwnPropertyDescriptor(Folder.prototype, 'names')?.get as () => Buffer[]
    let swapped: number | null = null
    const listing = vi.spyOn(Folder.prototype, 'names', 'get').mockImplementation(function (this: Folder) {
      const read = names.call(this)
      const swap = 'mv "$0/tree" "$0/aside" && ln -s "$1" "$0/tree"'
      if (swapped === null) swapped = spawnSync('setpriv', [...asStranger, 'sh', '-c', swap, shared, kept]).status
      return read
    })
    try {
      expect(() => removeIn(shared, 'tree')).toThrow('ENOTDIR')
    } finally {
      listing.mockRestore()
    }
    expect(swapped).toBe(0)
    expect(readdirSync(join(shared, 'aside'))).toEqual([])
    expect(isKept(kept)).toBe(true)
    removeIn(shared, 'tree')
    expect(readdirSync(shared)).toEqual(['aside'])
    expect(isKept(kept)).toBe(true)
  })
})

describe('the folder of the lab', () => {
  test('is made for its user alone', () => {
    expect(cacheFolder()).toBe(join(scratch, 'cache'))
    chmodSync(join(scratch, 'cache'), 0o755)
    expect(cacheFolder()).toBe(join(scratch, 'cache'))
  })
  test.each([0o775, 0o777, 0o1777])('is refused with mode %o', (mode) => {
    mkdirSync(join(scratch, 'cache'))
    chmodSync(join(scratch, 'cache'), mode)
    expect(cacheFolder).toThrow(LabError)
    expect(cacheFolder).toThrow(`${scratch}/cache can be written to by others (mode ${mode.toString(8)})`)
    expect(cacheFolder).toThrow('Set NODE_KVM_LAB_CACHE to another folder')
  })
  test('is refused below a folder where others may put another in its place', () => {
    mkdirSync(join(scratch, 'cache'))
    chmodSync(scratch, 0o777)
    expect(cacheFolder).toThrow(`${scratch} can be written to by others (mode 777)`)
    chmodSync(scratch, 0o1777)
    expect(cacheFolder()).toBe(join(scratch, 'cache'))
  })
  test('cannot be made where a file is', () => {
    writeFileSync(join(scratch, 'file'), '')
    vi.stubEnv('NODE_KVM_LAB_CACHE', join(scratch, 'file', 'cache'))
    expect(cacheFolder).toThrow(LabError)
    expect(cacheFolder).toThrow(/^the lab cannot make its folder \(ENOTDIR: .*\); set NODE_KVM_LAB_CACHE to another folder$/)
  })
  test('cannot be made in /proc, which is said at once', () => {
    vi.stubEnv('NODE_KVM_LAB_CACHE', '/proc/self/none/cache')
    expect(cacheFolder).toThrow(/^the lab cannot make its folder \(ENOENT: .*\); set NODE_KVM_LAB_CACHE to another folder$/)
  })
  test('is not sought where an empty variable says', () => {
    vi.stubEnv('NODE_KVM_LAB_CACHE', '')
    vi.stubEnv('XDG_CACHE_HOME', '')
    vi.stubEnv('HOME', scratch)
    expect(cacheFolder()).toBe(join(scratch, '.cache/node-kvm/lab'))
  })

  /** The command line, run as another user where that is possible. */
  const labAs = (user: number, cache: NodeJS.ProcessEnv) => {
    const [program, ...words] = asRoot ? ['setpriv', '--reuid', String(user), '--regid', String(user), '--clear-groups'] : ['env']
    const main = fileURLToPath(new URL('../../dist/lib/cli/main.js', import.meta.url))
    const env = { PATH: process.env['PATH'], ...cache }
    return spawnSync(program as string, [...words, process.execPath, main, 'lab', 'run', 'npt', '--', 'true'], { encoding: 'utf8', env })
  }
  const cannotRun = (stderr: string) => /Cannot find module|execvp|failed to execute/.test(stderr)

  test('that its user may not write to is told with what to do', (context) => {
    const cache = join(scratch, 'cache')
    mkdirSync(cache, { mode: 0o500 })
    chmodSync(scratch, 0o755)
    if (asRoot) chownSync(cache, stranger, stranger)
    const { status, stderr } = labAs(stranger, { NODE_KVM_LAB_CACHE: cache })
    if (cannotRun(stderr)) return skip(context, 'another user may not read this folder')
    expect(stderr).toMatch(/^node-kvm lab: the lab cannot use its folder \(EACCES: .*\); set NODE_KVM_LAB_CACHE to another folder$/m)
    expect(status).toBe(125)
  })
  test('has no place where its user has no home, which is told as well', (context) => {
    if (!asRoot) return skip(context, 'needs root, to become a user without an entry in /etc/passwd')
    const { status, stderr } = labAs(54_321, {})
    if (cannotRun(stderr)) return skip(context, 'another user may not read this folder')
    expect(stderr).toMatch(/^node-kvm lab: this user has no home folder .*; set NODE_KVM_LAB_CACHE to another folder$/m)
    expect(status).toBe(125)
  })
  test('may be named by a link to one, and is looked at where it is', () => {
    const real = join(scratch, 'real')
    mkdirSync(real)
    symlinkSync(real, join(scratch, 'cache'))
    expect(cacheFolder()).toBe(real)
    chmodSync(real, 0o777)
    expect(cacheFolder).toThrow(`${real} can be written to by others`)
  })
  test('is refused where it, what holds it, or what runs use in it is a stranger’s', async (context) => {
    if (!asRoot) return skip(context, 'needs root, to make what is another user’s')
    const kept = precious()
    mkdirSync(join(scratch, 'cache', 'runs'), { recursive: true })
    for (const path of [join(scratch, 'cache'), join(scratch, 'cache', 'runs'), scratch]) {
      chownSync(path, stranger, stranger)
      await expect(async () => runScratch()).rejects.toThrow(`${path} belongs to user ${stranger}`)
      chownSync(path, 0, 0)
    }
    // The stranger has put this there before: a link to a folder with names like those of runs.
    rmSync(join(scratch, 'cache', 'runs'), { recursive: true })
    renameSync(kept, join(scratch, 'run-precious'))
    chownSync(scratch, stranger, stranger)
    symlinkSync(scratch, join(scratch, 'cache', 'runs'))
    await expect(async () => runScratch()).rejects.toThrow(LabError)
    expect(isKept(join(scratch, 'run-precious'))).toBe(true)
  })
})

const node = (program: string, ...args: string[]): ChildProcess =>
  spawn(process.execPath, ['--input-type=module', '-e', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })

describe('a folder that is in use', () => {
  test('stays, and goes with its process or after it', async () => {
    const parent = cacheFolder()
    const own = await scratchFolder(parent, 'run-')
    const other = node(
      `import { scratchFolder } from ${importable('lab/scratch.js')}
      console.log((await scratchFolder(process.argv[1], 'run-')).path); setInterval(() => {}, 1000)`,
      parent
    )
    const [path] = await once(other.stdout as NonNullable<typeof other.stdout>, 'data')
    const foreign = String(path).trim()
    ;(await scratchFolder(parent, 'run-')).remove()
    expect([own.path, foreign].map(existsSync)).toEqual([true, true])
    other.kill('SIGKILL')
    await once(other, 'exit')
    expect(existsSync(foreign)).toBe(true)
    ;(await scratchFolder(parent, 'run-')).remove()
    expect([own.path, foreign].map(existsSync)).toEqual([true, false])
    own.remove()
    expect(readdirSync(parent)).toEqual([])
  })

  // This process ends itself at the n-th call that opens, closes or changes something, or makes the entry.
  const maker = `
    import fs from 'node:fs'
    import { syncBuiltinESMExports } from 'node:module'
    let left = Infinity
    for (const name of Object.keys(fs).filter((name) => /^(open|close|mk|write|rename|unlink|rmdir|fchmod)\\w*Sync$/.test(name))) {
      const call = fs[name]
      fs[name] = (...args) => {
        if (--left === 0) process.kill(process.pid, 'SIGKILL')
        return call(...args)
      }
    }
    syncBuiltinESMExports()
    const { entry } = await import(${importable('lab/cache.js')})
    left = Number(process.argv[1])
    await entry('thing', 1, async (folder) => fs.writeFileSync(folder + '/file', 'whole'))
    left = Infinity
    console.log('made')`

  test('of a maker at work is not another’s to remove, though the file of the lock was, and whoever is killed at whatever step', async () => {
    let steps = 0
    for (let made = false; !made; ) {
      steps++
      vi.stubEnv('NODE_KVM_LAB_CACHE', join(scratch, `cache ${steps}`))
      const progress = new EventEmitter()
      const begun = once(progress, 'begun')
      const finished = entry('thing', 1, async (folder) => {
        writeFileSync(join(folder, 'file'), 'whole')
        progress.emit('begun', folder)
        await once(progress, 'end')
      })
      const [folder] = await begun
      for (const name of readdirSync(cacheFolder()).filter((name) => name.endsWith('.lock'))) rmSync(join(cacheFolder(), name))
      const other = spawnSync(process.execPath, ['--input-type=module', '-e', maker, String(steps)], { encoding: 'utf8' })
      made = other.stdout === 'made\n'
      expect(other.signal, other.stderr).toBe(made ? null : 'SIGKILL')
      expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('whole')
      progress.emit('end')
      const path = await finished
      expect(readFileSync(join(path, 'file'), 'utf8')).toBe('whole')
      // Files of the killed process go when the entry is made the next time.
      rmSync(join(path, 'file'))
      await entry('thing', 1, async (again) => writeFileSync(join(again, 'file'), 'again'))
      expect(readdirSync(cacheFolder())).toEqual([path.slice(cacheFolder().length + 1)])
    }
    expect(steps).toBeGreaterThan(10)
  })
})
