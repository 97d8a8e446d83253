// Names that a stranger chose: of a process, its arguments, its files. The library may print them to a terminal, into XML, as JSON.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kvm, KvmError, Mapping, MiB } from 'node-kvm'
import { tables, trace, translate } from 'node-kvm/observe'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { json, visible, visibleLines, xml } from '../../lib/abi/text.js'
import { drawTables } from '../../lib/cli/map-drawing.js'
import { commandWords } from '../../lib/cli/words.js'
import { hostMappings } from '../../lib/observe/tables/backing.js'
import { commandLine } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { canRunVms, needsKvm } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { needsAll } from '../support/tables.js'
import { Target } from '../support/target.js'
import { vm } from '../support/vm.js'
import { malformed } from '../support/xml.js'

/** ESC and OSC sequences, a new line, the C1 form of ESC [, U+2028, a mark that turns text around, marks of XML, half of a surrogate pair. */
const file = '\x1b[31mEVIL\x1b]0;pwned\x07\n<script>alert(1)<&"\'\u009b2J\u2028\u202egnp.exe\r00400000-00500000 rw-p 00000000 00:00 0 evil'
const hostile = `${file}\ud800 \ufffe]]>`
/** The characters on which a terminal would act, or which would hide or turn the text around them; new lines are the program's own. */
const acted = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u
const actsOn = (text: string) => acted.exec(text.replaceAll('\n', ''))?.[0].codePointAt(0)?.toString(16)

describe('text', () => {
  test('for a terminal is one line, in which every control is seen', () => {
    expect(visible(hostile)).not.toMatch(/\n/)
    expect(actsOn(visible(hostile))).toBeUndefined()
    expect(visible('\x1b\n\x7f\u009b\u2028\u202e\u200b\u{e0041}\ud800')).toBe('\\x1b\\x0a\\x7f\\x9b\\u2028\\u202e\\u200b\\u{e0041}\\ud800')
    expect(visible('größe 日本 😀 /a b')).toBe('größe 日本 😀 /a b')
    expect(visibleLines('a\n\x1b')).toBe('a\n\\x1b')
    expect(actsOn(commandWords(`/usr/bin/${hostile}`, 80))).toBeUndefined()
  })
  test('for XML is well-formed, in an attribute too', () => {
    expect(malformed(`<a b="${xml(hostile)}">${xml(hostile)}</a>`)).toBeNull()
    expect(malformed(`<a>${hostile}</a>`)).not.toBeNull()
    for (const broken of ['<a>', '<a></b>', '<a b="<"/>', '<a>&</a>', '<a>\x1b</a>', '<a/><b/>', 'a', '<script>alert(1)<&"</script>'])
      expect(malformed(broken), broken).not.toBeNull()
  })
  test('for JSON is the same value, and is printed as it stands', () => {
    const value = { [hostile]: [hostile, 0xffff_ffff_81ab_cdefn] }
    expect(JSON.parse(json(value, 2))).toEqual({ [hostile]: [hostile, '0xffffffff81abcdef'] })
    expect(actsOn(json(value, 2))).toBeUndefined()
    expect(json(value).split('\n')).toHaveLength(1)
  })
  test('of an error is printable, whatever it names', () => {
    for (const error of [
      checkedError(() => Kvm.open(`/none/${hostile}`), 'unavailable'),
      checkedError(() => Mapping.file(`/none/${hostile}`, MiB), 'memory'),
      checkedError(() => trace(vm, { kinds: [hostile as never] }), 'argument'),
      checkedError(() => translate(vm, hostile as never), 'argument'),
      checkedError(() => vm.memslots.create({ [hostile]: 1 } as never), 'argument'),
      new KvmError('state', hostile)
    ])
      expect(actsOn(error.message)).toBeUndefined()
  })
})

test('a drawing is well-formed XML, whatever the process is called', () => {
  vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(MiB) })
  const table = tables(vm)
  table.evidence.missing.push(hostile)
  const drawing = drawTables(table, hostile, hostile)
  expect(malformed(drawing)).toBeNull()
  expect(actsOn(drawing)).toBeUndefined()
  expect(drawing).not.toContain('<script')
})

describe('of another process', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-kvm-names-'))
  const path = join(folder, file.replaceAll('/', ''))
  const cli = (...args: string[]) => spawnSync(process.execPath, [commandLine, ...args], { encoding: 'utf8', timeout: patience })
  let target: Target
  beforeEach(needsKvm)
  beforeAll(async () => {
    mkdirSync(folder, { recursive: true })
    writeFileSync(path, new Uint8Array(MiB))
    if (!canRunVms) return
    target = await Target.start([], [file])
    await target.do('file', { path })
  })
  afterAll(async () => {
    await target?.end()
    rmSync(folder, { recursive: true, force: true })
  })

  test('has files that are one mapping each, whatever their names look like', () => {
    const mappings = hostMappings(target.pid)
    expect(mappings.filter(({ path: name }) => name.includes('EVIL'))).toHaveLength(1)
    expect(mappings.filter(({ path: name }) => name === 'evil')).toEqual([])
  })

  test('has names that are visible in a terminal, in a drawing and in JSON', (context) => {
    needsAll(context)
    const pid = String(target.pid)
    const drawing = join(folder, 'drawing.svg')
    for (const args of [
      ['map'],
      ['map', '--pid', pid],
      ['map', '--pid', pid, '--gpa', '0x80000000'],
      ['map', '--pid', pid, '--summary', '--svg', drawing]
    ]) {
      const { stdout, stderr, status } = cli(...args)
      expect([status, stderr]).toEqual([0, ''])
      expect(actsOn(stdout)).toBeUndefined()
      expect(stdout).toContain('\\x1b[31mEVIL')
    }
    expect(malformed(readFileSync(drawing, 'utf8'))).toBeNull()
    const { stdout } = cli('map', '--json', '--pid', pid)
    expect(actsOn(stdout)).toBeUndefined()
    const [found] = JSON.parse(stdout).vms
    expect(found.command).toContain(file)
    // The kernel writes the new line of a path as \012.
    expect(found.slots.map((slot: { path: string }) => slot.path)).toContain(path.replaceAll('\n', '\\012'))
  })

  test('is named visibly where it runs no VM, or cannot be run', async () => {
    const idle = spawn(process.execPath, [
      '-e',
      'process.title = process.argv[1]; console.log("ready"); setInterval(() => {}, 1000)',
      '\x1b[31mEVIL\r\u009b'
    ])
    try {
      await once(idle.stdout, 'data')
      for (const { stdout, stderr, status } of [
        cli('map', '--pid', String(idle.pid)),
        cli('trace', '--', file),
        cli(file),
        cli('map', file),
        cli('trace', '--out', `/none/${file}`, '--', 'true')
      ]) {
        expect(status).not.toBe(0)
        expect(actsOn(stdout + stderr)).toBeUndefined()
        expect(stderr).toMatch(/\\x1b\[31mEVIL|permission|unavailable|tracefs|tracepoints/)
      }
    } finally {
      idle.kill('SIGKILL')
    }
  })
})
