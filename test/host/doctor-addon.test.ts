import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { skip } from '../support/skip.js'

/** The package as `npm install --ignore-scripts` leaves it, without the registry: the published files, and the dependencies beside them. */
let folder: string
let installed: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'node-kvm-unbuilt-'))
  installed = join(folder, 'node_modules/node-kvm')
  mkdirSync(installed, { recursive: true })
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
  for (const part of ['package.json', 'dist/doors', 'dist/lib', 'dist/lab']) cpSync(part, join(installed, part), { recursive: true })
  for (const name of Object.keys(dependencies)) symlinkSync(resolve('node_modules', name), join(folder, 'node_modules', name))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function node(words: string[], env: NodeJS.ProcessEnv = {}) {
  const { NODE_KVM_ADDON: _, ...inherited } = process.env
  return spawnSync(process.execPath, words, { cwd: folder, encoding: 'utf8', env: { ...inherited, ...env }, timeout: 50_000 })
}
const command = (...words: string[]) => node([join(installed, 'dist/lib/cli/main.js'), ...words])
const imported = () =>
  node(['--input-type=module', '-e', "import('node-kvm').catch(({ name, code, message }) => console.log(JSON.stringify({ name, code, message })))"])

const rebuild = () => `(cd ${folder} && npm rebuild node-kvm --ignore-scripts=false --foreground-scripts)`

describe('without a native build', () => {
  test('the doctor says so first, and which command makes one, and goes on', () => {
    const { stdout, stderr, status } = command('doctor', '--json')
    expect({ stderr, status }).toEqual({ stderr: '', status: 1 })
    const { ok, findings, host, capabilities } = JSON.parse(stdout)
    expect({ ok, capabilities }).toEqual({ ok: false, capabilities: null })
    expect(host.kernel).toMatch(/^\d+\./)
    expect(findings[0]).toMatchObject({
      name: 'add-on',
      ok: false,
      detail: expect.stringContaining('there is no native build'),
      remedy: expect.stringContaining(rebuild())
    })
    const names = findings.map(({ name }: { name: string }) => name)
    expect(names).toEqual(
      expect.arrayContaining(['/dev/kvm', 'second stage', '/proc/self', 'pagemap frames', 'lockdown', 'hugetlb', 'binutils', 'lab'])
    )
    expect(names).not.toContain('guests')
  })

  test('the doctor names what a build needs and is not here', () => {
    const empty = join(folder, 'empty')
    mkdirSync(empty)
    const { stdout } = node([join(installed, 'dist/lib/cli/main.js'), 'doctor', '--json'], { PATH: empty })
    const { detail, remedy, advice } = JSON.parse(stdout).findings[0]
    expect(detail).toContain('a build needs python3 and make and g++, not found here')
    expect(`${remedy} ${advice}`).toContain('python3 make g++')
  })

  test.each([['walkthrough'], ['map'], ['trace', '--', 'true']])('%s says it in a line, and ends with 1', (...words) => {
    const { stdout, stderr, status } = command(...words)
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 })
    expect(stderr.trimEnd().split('\n')).toEqual([
      expect.stringContaining(`native add-on of node-kvm is missing; build it, which needs python3, make and g++: ${rebuild()}`)
    ])
  })

  test('what needs no build works', () => {
    expect(command('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('usage: node-kvm') })
    expect(command('--version')).toMatchObject({ status: 0 })
    for (const name of ['walkthrough', 'doctor', 'map', 'trace', 'lab'])
      expect(command(name, '--help')).toMatchObject({ status: 0, stdout: expect.stringContaining(`usage: node-kvm ${name}`) })
    expect(command('lab', 'list')).toMatchObject({ status: 0, stdout: expect.stringContaining('ept') })
  })

  test('importing the library is one error that teaches', () => {
    const { name, code, message } = JSON.parse(imported().stdout)
    expect({ name, code }).toEqual({ name: 'KvmError', code: 'unavailable' })
    expect(message.split('\n')).toEqual([expect.stringContaining(rebuild())])
  })
})

describe('a native build does not load', () => {
  const build = () => join(installed, 'build/Release/node_kvm.node')
  beforeAll(() => {
    mkdirSync(join(installed, 'build/Release'), { recursive: true })
  })
  afterAll(() => rmSync(join(installed, 'build'), { recursive: true }))

  /** An add-on of another machine: e_machine of the ELF header is that of ARM. */
  const ofAnotherProcessor = () => {
    const file = readFileSync(join('build/Release', 'node_kvm.node'))
    file.writeUInt16LE(183, 18)
    return file
  }
  test.for([
    ['is empty', () => Buffer.alloc(0), 'file too short'],
    ['is no library', () => Buffer.from('not a library, but of some length\n'.repeat(20)), 'invalid ELF header'],
    ['is cut off', () => readFileSync('build/Release/node_kvm.node').subarray(0, 4096), 'the file ends after 4096 of [0-9]+ bytes'],
    ['is for another processor', ofAnotherProcessor, 'cannot open shared object file']
  ] as const)('where it %s', ([, contents, reason]) => {
    writeFileSync(build(), contents())
    expectBroken(reason)
  })

  test('where it is for another C library', (context) => {
    const musl = join(folder, 'libc.musl-x86_64.so.1')
    const source = join(folder, 'empty.c')
    writeFileSync(source, '')
    const { status, error } = spawnSync('gcc', ['-shared', '-o', musl, source, '-Wl,-soname,libc.musl-x86_64.so.1'])
    if (error || status !== 0) return skip(context, 'no gcc here, to make a library that needs another one')
    spawnSync('gcc', ['-shared', '-o', build(), source, '-Wl,--no-as-needed', musl])
    rmSync(musl)
    expectBroken('libc.musl-x86_64.so.1')
  })

  function expectBroken(reason: string): void {
    const { message, code } = JSON.parse(imported().stdout)
    expect({ code, lines: message.split('\n') }).toEqual({
      code: 'unavailable',
      lines: [expect.stringMatching(new RegExp(`does not load here: .*(${reason})`))]
    })
    expect(message).toContain(rebuild())
    expect(command('map')).toMatchObject({ status: 1, stdout: '', stderr: `node-kvm: ${message}\n` })
    const { stdout, stderr, status } = command('doctor', '--json')
    expect({ stderr, status }).toEqual({ stderr: '', status: 1 })
    expect(JSON.parse(stdout).findings[0]).toMatchObject({
      name: 'add-on',
      ok: false,
      detail: expect.stringMatching(new RegExp(`does not load: .*(${reason})`)),
      remedy: expect.stringContaining('npm rebuild')
    })
  }
})
