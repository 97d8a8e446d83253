import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { KiB, MiB } from 'node-kvm'
import { diff, type HostVm, hostVms, hpaToGpa, hvaToGpa, type ListedSlot, rowOf, summarize, tables, translate } from 'node-kvm/observe'
import { expect, test } from 'vitest'
import { inLab, skip } from '../support/skip.js'
import { needsAll } from '../support/tables.js'
import { shareTarget, type Target } from '../support/target.js'

const base = 0x100_0000
const slow = inLab?.startsWith('ept') ?? false

let target: Target
shareTarget((made) => {
  target = made
})

const machine = (): HostVm => hostVms({ pid: target.pid })[0] as HostVm
const randomPages = (count: number, gpa: number, size: number) =>
  Array.from({ length: count }, () => gpa + Math.floor((Math.random() * size) / 4096) * 4096)

test('the frames of 1,000 random pages are what the process says, by GPA to HVA to HPA and by GPA to HPA', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 8, size: 4 * MiB })
  await target.do('guest')
  await target.do('touchAll')
  const gpas = Array.from({ length: 8 }, (_, index) => randomPages(125, base + index * (4 * MiB + 64 * KiB), 4 * MiB)).flat()
  const { truth } = await target.do('truth', { gpas })
  const table = tables(machine())
  expect(table.evidence).toMatchObject({ source: 'bpf', secondStage: 'bpf', host: 'pagemap', torn: false, lost: 0 })
  const seen = gpas.map((gpa) => {
    const row = rowOf(table, gpa)
    return { gpa: table.gpa[row], hva: table.hva[row], hpa: table.hpa[row], second: table.secondHpa[row] }
  })
  expect(seen).toEqual(truth.map(({ gpa, hva, hpa }: any) => ({ gpa, hva, hpa, second: hpa })))
  expect(seen).toHaveLength(1000)
  expect(table).toMatchObject({ disagreeing: 0 })
  expect(table.compared).toBeGreaterThanOrEqual(8 * 1024)
  const { gpa, hva, hpa } = truth[7]
  expect(hvaToGpa(table, hva + 5)).toEqual([gpa + 5])
  expect(hpaToGpa(table, hpa + 5)).toEqual([gpa + 5])
})

test('the memslots of a VM are those it made, with what stands behind them', async (context) => {
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
    const { id, gpa, hva } = found.memslots[5] as ListedSlot
    const all = { id, addressSpace: 0, gpa, size: MiB, hva, flags: 0, logDirty: false, readonly: false, backing: 'file', path }
    expect(found.memslots[5]).toMatchObject(all)
    expect(found.memslots[5]?.toJSON()).toEqual(all)
    expect(inspect(found.memslots[5])).toBe(inspect(all))
    expect(found.command).toContain('target.mjs')
    expect(found.memory).toBe(5 * 64 * KiB + 2 * MiB)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

const many = inLab ? 4000 : 32_000
test(`all of ${many} slots are told`, async (context) => {
  needsAll(context)
  await target.do('manySlots', { count: many })
  const { memslots } = machine()
  expect(memslots.map(({ gpa }) => gpa)).toEqual(Array.from({ length: many }, (_, index) => 0x1_0000_0000 + index * 8 * KiB))
})

const readings = slow ? 30 : inLab ? 100 : 300
test('a dump of 300 slots that move is whole unless it is told as torn', async (context) => {
  needsAll(context)
  const { slots } = await target.do('slots', { count: 300, size: 16 * KiB, gap: 112 * KiB })
  const first = slots.map(({ gpa }: any) => gpa)
  await target.do('move', { by: 64 * KiB })
  let torn = 0
  let whole = 0
  for (let round = 0; round < readings; round++) {
    const { memslots, evidence } = machine()
    if (evidence.torn) {
      torn++
      continue
    }
    whole++
    // At any moment the moved slots are the first ones, in the order of the moves, and all others are where they were.
    expect(memslots).toHaveLength(300)
    const away = memslots.map((slot) => first.indexOf(slot.gpa) < 0)
    expect(memslots.every((slot, index) => slot.gpa === first[index] + (away[index] ? 64 * KiB : 0))).toBe(true)
    expect(away.filter((moved, index) => index > 0 && moved !== away[index - 1]).length).toBeLessThanOrEqual(1)
  }
  target.tell('stop')
  const { moves } = await target.answer()
  console.log(`${moves} moves; of ${readings} readings ${whole} whole, ${torn} told as torn`)
  expect(moves).toBeGreaterThan(100)
  expect(whole).toBeGreaterThan(0)
})

test('a page that is given back vanishes, appears when it is touched again, and has moved where it is in another frame', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 1, size: 64 * KiB })
  await target.do('guest')
  await target.do('touchAll')
  const read = () => tables(machine(), { gpa: base, size: 64 * KiB })
  const first = read()
  await target.do('advise', { index: 0, advice: 'dontneed', offset: 0x3000, length: 4096 })
  const second = read()
  expect(diff(first, second)).toMatchObject([{ kind: 'vanished', gpa: base + 0x3000, size: 4096, before: { level: 1 }, after: { level: 0 } }])
  expect(translate(machine(), base + 0x3000).secondStage).toMatchObject({ present: false, reason: expect.stringContaining('no entry') })
  await target.do('touch', { gpa: base + 0x3000, pages: 1 })
  const third = read()
  expect(diff(second, third)).toMatchObject([{ kind: 'appeared', gpa: base + 0x3000, size: 4096 }])
  await target.do('remap', { index: 0, offset: 0x5000, length: 8192 })
  await target.do('touch', { gpa: base + 0x5000, pages: 2 })
  expect(diff(third, read())).toMatchObject([{ kind: 'moved', gpa: base + 0x5000, size: 8192, before: { level: 1 }, after: { level: 1 } }])
})

test('a transparent huge page is at level 2, is split when one page is given back, and is merged when it is collapsed', async (context) => {
  needsAll(context)
  const size = 4 * MiB
  await target.do('slots', { count: 1, size, hugePages: true })
  await target.do('guest')
  await target.do('touchAll')
  const read = () => tables(machine(), { gpa: base, size })
  const first = read()
  const { mapped, whySmall } = summarize(first)
  if (mapped.huge2M === 0) skip(context, `no level-2 entry here: ${Object.keys(whySmall).join('; ') || 'the host gave no huge page'}`)
  const row = first.level.indexOf(2)
  const gpa = first.gpa[row] as number
  expect(translate(machine(), gpa + 0x1234)).toMatchObject({ agrees: true, secondStage: { present: true, level: 2, size: 2 * MiB } })
  await target.do('advise', { index: 0, advice: 'dontneed', offset: gpa - base + 0x5000, length: 4096 })
  await target.do('touch', { gpa, pages: 512, how: 'read' })
  const second = read()
  const split = diff(first, second).filter(({ kind }) => kind === 'split')
  // The one page came anew: it is another frame, and at a lower level, too.
  expect(split.reduce((sum, each) => sum + each.size, 0)).toBe(2 * MiB)
  expect(split[0]).toMatchObject({ gpa, before: { level: 2 }, after: { level: 1 } })
  await target.do('touch', { gpa, pages: 512, how: 'write' })
  const third = read()
  const collapsed = await target.do('advise', { index: 0, advice: 'collapse', offset: gpa - base, length: 2 * MiB })
  if (collapsed.error) skip(context, `the host did not collapse the pages: ${collapsed.error}`)
  await target.do('touch', { gpa, pages: 512, how: 'write' })
  expect(diff(third, read()).filter(({ kind }) => kind === 'merged')).toMatchObject([
    { gpa, size: 2 * MiB, before: { level: 1 }, after: { level: 2 } }
  ])
})

test('dirty logging is why an entry is small', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 1, size: 2 * MiB, hugePages: true, dirty: true })
  await target.do('guest')
  await target.do('touchAll')
  const { host, secondStage } = translate(machine(), base)
  expect(secondStage).toMatchObject({ present: true, level: 1 })
  if (!(host?.huge ?? host?.transparentHuge)) skip(context, 'the host gave no huge page')
  expect(secondStage).toMatchObject({ whySmall: expect.stringContaining('dirty-logged') })
})

test('reading does not disturb the VM: there are no notifier calls, no faults, no exits', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 2, size: MiB })
  await target.do('guest')
  await target.do('touchAll')
  const before = await target.do('statistics')
  const first = tables(machine())
  for (let round = 0; round < (slow ? 5 : 50); round++) tables(machine())
  expect(diff(first, tables(machine()))).toEqual([])
  expect(first.evidence.invalidations).toBe(0)
  expect(await target.do('statistics')).toEqual(before)
})
