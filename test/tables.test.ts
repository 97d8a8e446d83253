import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describeHost, diff, Guest, hpaToGpa, hvaToGpa, KiB, type Machine, Mapping, MiB, machines, rowOf, summarize } from 'node-kvm'
import { afterEach, beforeEach, describe, expect, type TestContext, test } from 'vitest'
import { tryReading } from '../lib/translation/reader.js'
import { checkedError } from './support/errors.js'
import { skip } from './support/skip.js'
import { Target } from './support/target.js'
import { vm } from './support/vm.js'

const main = fileURLToPath(new URL('../dist/lib/cli/main.js', import.meta.url))
const map = (args: string[], options: object = {}) =>
  spawnSync(process.execPath, [main, 'map', ...args], { encoding: 'utf8', timeout: 60_000, maxBuffer: 2 ** 28, ...options })
const base = 0x100_0000

const refused = tryReading()
/** BPF, and frame numbers: what comparing all three tables takes. */
function needsAll(context: TestContext): void {
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  if (process.getuid?.() !== 0) skip(context, 'frame numbers need CAP_SYS_ADMIN')
}

let target: Target
beforeEach(async () => {
  target = await Target.start()
})
afterEach(() => target.end())

const machine = (): Machine => machines({ pid: target.pid })[0] as Machine
const randomPages = (count: number, gpa: number, size: number) =>
  Array.from({ length: count }, () => gpa + Math.floor((Math.random() * size) / 4096) * 4096)

describe("another process's VM", () => {
  test('1,000 random pages: GPA -> HVA -> HPA and GPA -> HPA are what the process says', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 8, size: 4 * MiB })
    await target.do('guest')
    await target.do('touchAll')
    const gpas = Array.from({ length: 8 }, (_, index) => randomPages(125, base + index * (4 * MiB + 64 * KiB), 4 * MiB)).flat()
    const { truth } = await target.do('truth', { gpas })
    const table = machine().tables()
    expect(table.evidence).toMatchObject({ source: 'bpf', secondStage: 'bpf', host: 'pagemap', torn: false, lost: 0 })
    const seen = gpas.map((gpa) => {
      const row = rowOf(table, gpa)
      return { gpa: table.gpa[row], hva: table.hva[row], hpa: table.hpa[row], second: table.secondHpa[row] }
    })
    expect(seen).toEqual(truth.map(({ gpa, hva, hpa }: any) => ({ gpa, hva, hpa, second: hpa })))
    expect(table).toMatchObject({ disagreeing: 0 })
    expect(table.compared).toBeGreaterThanOrEqual(8 * 1024)
    const { gpa, hva, hpa } = truth[7]
    expect(hvaToGpa(table, hva + 5)).toEqual([gpa + 5])
    expect(hpaToGpa(table, hpa + 5)).toEqual([gpa + 5])
  })

  test('its memslots are those it made, with what stands behind them', async (context) => {
    needsAll(context)
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-tables-'))
    const path = join(folder, 'image')
    try {
      writeFileSync(path, new Uint8Array(MiB))
      const { slots } = await target.do('slots', { count: 5, size: 64 * KiB })
      await target.do('file', { path })
      const found = machine()
      expect(found.memslots.slice(0, 5).map(({ id, gpa, size, hva }) => ({ id, gpa, size, hva }))).toEqual(slots)
      expect(found.memslots.map(({ backing }) => backing)).toEqual([...Array(5).fill('anonymous'), 'file', 'memfd'])
      expect(found.memslots[5]?.path).toBe(path)
      expect(found.command).toContain('target.mjs')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('32,000 slots are all told', async (context) => {
    needsAll(context)
    await target.do('manySlots', { count: 32_000 })
    const { memslots } = machine()
    expect(memslots).toHaveLength(32_000)
    memslots.forEach((slot, index) => expect(slot.gpa).toBe(0x1_0000_0000 + index * 8 * KiB))
  })

  test('moving slots: a dump that is not told as torn is whole', async (context) => {
    needsAll(context)
    const { slots } = await target.do('slots', { count: 300, size: 16 * KiB, gap: 112 * KiB })
    const first = slots.map(({ gpa }: any) => gpa)
    await target.do('move', { by: 64 * KiB })
    let torn = 0
    let whole = 0
    for (let round = 0; round < 300; round++) {
      const { memslots, evidence } = machine()
      if (evidence.torn) {
        torn++
        continue
      }
      whole++
      // At any moment the slots that were moved are those up to some place, in the order of the moves: all others stand where they stood.
      expect(memslots).toHaveLength(300)
      const away = memslots.map((slot) => first.indexOf(slot.gpa) < 0)
      expect(memslots.every((slot, index) => slot.gpa === first[index] + (away[index] ? 64 * KiB : 0))).toBe(true)
      expect(away.filter((moved, index) => index > 0 && moved !== away[index - 1]).length).toBeLessThanOrEqual(1)
    }
    target.tell('stop')
    const { moves } = await target.answer()
    console.log(`${moves} moves; of 300 readings ${whole} whole, ${torn} told as torn`)
    expect(moves).toBeGreaterThan(100)
    expect(whole).toBeGreaterThan(0)
  })

  test('MADV_DONTNEED of one page makes its entry vanish, and a new touch brings another page', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 1, size: MiB })
    await target.do('guest')
    await target.do('touchAll')
    const before = machine().tables({ gpa: base, size: MiB })
    await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x3000, length: 4096 })
    const between = machine().tables({ gpa: base, size: MiB })
    expect(diff(before, between)).toMatchObject([{ kind: 'vanished', gpa: base + 0x3000, size: 4096, before: { level: 1 }, after: { level: 0 } }])
    expect(machine().translate(base + 0x3000).secondStage).toMatchObject({ present: false, reason: expect.stringContaining('no entry') })
    await target.do('touch', { gpa: base + 0x3000, pages: 1 })
    expect(diff(between, machine().tables({ gpa: base, size: MiB }))).toMatchObject([{ kind: 'appeared', gpa: base + 0x3000, size: 4096 }])
  })

  test('transparent huge pages: level 2, and one page given back splits it', async (context) => {
    needsAll(context)
    // Of 6 MiB at least 2 are whole on both sides, as the GPA is as the HVA within 2 MiB only by chance: the slot is placed so.
    await target.do('slots', { count: 1, size: 8 * MiB, hugePages: true })
    await target.do('guest')
    await target.do('touchAll')
    const before = machine().tables({ gpa: base, size: 8 * MiB })
    if (summarize(before).mapped.huge2M === 0)
      skip(context, `no level-2 entry here: ${Object.keys(summarize(before).whySmall).join('; ') || 'the host gave no huge page'}`)
    const row = before.level.indexOf(2)
    const gpa = before.gpa[row] as number
    await target.do('advise', { index: 0, advice: 'dontneed', offset: gpa - base + 0x5000, length: 4096 })
    await target.do('touch', { gpa, pages: 512, how: 'read' })
    const kinds = diff(before, machine().tables({ gpa: base, size: 8 * MiB })).map(({ kind }) => kind)
    expect(kinds).toContain('split')
  })

  test('reading does not disturb it: no notifier calls, no faults, no exits', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 2, size: MiB })
    await target.do('guest')
    await target.do('touchAll')
    const first = machine().tables()
    for (let round = 0; round < 50; round++) machine().tables()
    expect(diff(first, machine().tables())).toEqual([])
    expect(first.evidence.invalidations).toBe(0)
  })
})

describe("this process's VM", () => {
  test('translate: the three tables agree, before and after each change', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    const slot = vm.memslots.create({ gpa: 0xa000, mapping: page })
    guest.write(0xa000, 7n)
    const first = vm.translate(0xa008)
    expect(first).toMatchObject({ gpa: 0xa008, hva: page.address + 8, agrees: true, secondStage: { present: true, level: 1, hpa: first.hpa } })
    page.remap()
    expect(vm.translate(0xa000).secondStage.present).toBe(false)
    guest.write(0xa000, 8n)
    const second = vm.translate(0xa008)
    expect(second).toMatchObject({ hva: first.hva, agrees: true })
    expect(second.hpa).not.toBe(first.hpa)
    slot.move(0xe000)
    expect(vm.translate(0xa000)).toMatchObject({
      slot: null,
      hva: null,
      hpa: null,
      agrees: null,
      secondStage: { present: false, reason: expect.stringContaining('MMIO') }
    })
    guest.read(0xe000)
    expect(vm.translate(0xe008)).toMatchObject({ hva: first.hva, hpa: second.hpa, agrees: true })
  })

  test('a read-only host page is a read-only entry', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    page.write(0, new Uint8Array([1]))
    vm.memslots.create({ gpa: 0xa000, mapping: page })
    guest.write(0xa000, 1n)
    const before = vm.tables()
    page.protect('r')
    guest.read(0xa000)
    expect(vm.translate(0xa000)).toMatchObject({ agrees: true, secondStage: { present: true, spte: { write: false } } })
    expect(diff(before, vm.tables())).toMatchObject([{ kind: 'permission', gpa: 0xa000 }])
  })

  test('one page at two GPAs: every alias', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    for (const gpa of [0xa000, 0x2_a000]) vm.memslots.create({ gpa, mapping: page })
    for (const gpa of [0xa000, 0x2_a000]) guest.write(gpa, 1n)
    const table = vm.tables()
    expect(hvaToGpa(table, page.address)).toEqual([0xa000, 0x2_a000])
    expect(hpaToGpa(table, vm.translate(0xa000).hpa as number)).toEqual([0xa000, 0x2_a000])
  })

  test('a slot whose memory is not there, and a VM without a vCPU', (context) => {
    needsAll(context)
    vm.memslots.create({ gpa: 0xa000, mapping: Mapping.anonymous(4 * KiB) })
    expect(vm.translate(0xa000)).toMatchObject({ hpa: null, host: { present: false, swapped: false }, agrees: null, secondStage: { present: false } })
    expect(vm.tables().gpa).toHaveLength(0)
  })

  test('bad arguments', () => {
    for (const gpa of [-1, 1.5, Number.NaN, 2 ** 52, '0xa000', 10n, undefined])
      expect(checkedError(() => vm.translate(gpa as number), 'argument').argument).toBe('gpa')
    for (const pid of [0, -1, 1.5, 'x']) expect(checkedError(() => machines({ pid: pid as number }), 'argument').argument).toBe('pid')
    vm.close()
    checkedError(() => vm.translate(0xa000), 'closed')
    checkedError(() => vm.tables(), 'closed')
  })
})

describe('node-kvm map', () => {
  test('as JSON lists the VM with its slots', async (context) => {
    needsAll(context)
    const { slots } = await target.do('slots', { count: 3, size: 64 * KiB })
    const { vms } = JSON.parse(map(['--json']).stdout)
    const found = vms.find(({ pid }: any) => pid === target.pid)
    expect(found).toMatchObject({ vcpus: 0, command: expect.stringContaining('target.mjs'), evidence: { source: 'bpf', torn: false } })
    expect(found.slots).toMatchObject(slots.map((slot: object) => ({ ...slot, addressSpace: 0, flags: 0, backing: 'anonymous' })))
  })

  test('--gpa prints the three tables', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    await target.do('touchAll')
    const {
      truth: [{ hva, hpa }]
    } = await target.do('truth', { gpas: [base + 0x2000] })
    const { stdout, status } = map(['--pid', String(target.pid), '--gpa', `0x${(base + 0x2000).toString(16)}`])
    expect(status).toBe(0)
    expect(stdout).toContain(`-> 0x${hva.toString(16)} `)
    expect(stdout.match(new RegExp(`-> 0x${hpa.toString(16)} `, 'g'))).toHaveLength(2)
    expect(stdout).toContain('the tables agree')
    expect(map(['--pid', String(target.pid), '--gpa', '0xfee00000']).stdout).toContain('MMIO')
  })

  test('--pages, --summary and --svg', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    await target.do('touchAll')
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-map-'))
    try {
      const picture = join(folder, 'map.svg')
      const {
        vms: [found]
      } = JSON.parse(map(['--pid', String(target.pid), '--pages', '--summary', '--svg', picture, '--json']).stdout)
      expect(found.pages.filter(({ gpa }: any) => gpa < base + 64 * KiB)).toHaveLength(16)
      expect(found.summary).toMatchObject({ disagreeing: 0 })
      expect(map(['--pid', String(target.pid), '--pages']).stdout.split('\n').length).toBeGreaterThan(16)
      expect(map(['--pid', String(target.pid), '--summary']).stdout).toContain('all agree')
      expect(spawnSync('grep', ['-c', '<rect', picture], { encoding: 'utf8' }).stdout).not.toBe('0\n')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test.each([
    [['--pid', '1'], 1, 'runs no VM'],
    [['--pid', '4000000'], 1, 'there is no process'],
    [['--pid', 'x'], 2, "--pid is 'x'"],
    [['--gpa', '0'], 2, 'need --pid'],
    [['--pid', String(process.pid), '--gpa', 'y'], 2, "--gpa is 'y'"],
    [['4711'], 2, "takes no '4711'"]
  ])('%j', (args, wanted, message) => {
    const { stderr, status } = map(args)
    expect(status).toBe(wanted)
    expect(stderr).toContain(message)
    expect(stderr).not.toContain('    at ')
  })

  test('a process that ended', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 1, size: 64 * KiB })
    const found = machine()
    await target.end()
    expect(checkedError(() => found.tables(), 'closed').message).toContain('gone')
    expect(map(['--pid', String(target.pid)]).stderr).toContain('there is no process')
  })

  test('another user is told what is missing, and sees no more than that', (context) => {
    needsAll(context)
    const { stdout, stderr, status, error } = map(['--json'], { uid: 65534, gid: 65534 })
    if (error || stderr.includes('EACCES: permission denied')) skip(context, 'another user may not read this folder, or that of the Node binary')
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toEqual({ vms: [] })
    const one = map(['--pid', String(process.pid)], { uid: 65534, gid: 65534 })
    expect(one.status).toBe(1)
  })
})

test(`the second stage here is ${describeHost().mmu}`, (context) => {
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  expect(vm.tables().evidence.secondStage).toBe('bpf')
})
