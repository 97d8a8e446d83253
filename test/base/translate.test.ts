import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { KiB, Mapping, MiB } from 'node-kvm'
import { type Change, describeHost, diff, hostVms, hpaToGpa, hvaToGpa, type Tables, tables, translate } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { describe, expect, test } from 'vitest'
import { native, type TableFailure } from '../../lib/abi/native.js'
import { backingOf, type HostMapping } from '../../lib/observe/tables/backing.js'
import { hostBits } from '../../lib/observe/tables/host-page.js'
import { explainRefusal, missingFieldNames, missingOnHost, type ReadingHost } from '../../lib/observe/tables/refusal.js'
import { checkedError } from '../support/errors.js'
import { skip } from '../support/skip.js'
import { needsAll, refused } from '../support/tables.js'
import { vm } from '../support/vm.js'

describe("this process's VM", () => {
  test('the three tables agree, before and after each change', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    const slot = vm.memslots.create({ gpa: 0xa000, mapping: page })
    guest.write(0xa000, 7n)
    const first = translate(vm, 0xa008)
    expect(first).toMatchObject({ gpa: 0xa008, hva: page.address + 8, agrees: true, secondStage: { present: true, level: 1, hpa: first.hpa } })
    page.remap()
    expect(translate(vm, 0xa000).secondStage.present).toBe(false)
    guest.write(0xa000, 8n)
    const second = translate(vm, 0xa008)
    expect(second).toMatchObject({ hva: first.hva, agrees: true })
    expect(second.hpa).not.toBe(first.hpa)
    slot.move(0xe000)
    expect(translate(vm, 0xa000)).toMatchObject({
      slot: null,
      hva: null,
      hpa: null,
      agrees: null,
      secondStage: { present: false, reason: expect.stringContaining('MMIO') }
    })
    guest.read(0xe000)
    expect(translate(vm, 0xe008)).toMatchObject({ hva: first.hva, hpa: second.hpa, agrees: true })
  })

  test('a read-only host page is a read-only entry', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    page.write(0, new Uint8Array([1]))
    vm.memslots.create({ gpa: 0xa000, mapping: page })
    guest.write(0xa000, 1n)
    // This reads only this page, because the host may take others away at any time.
    const read = () => tables(vm, { gpa: 0xa000, size: 4 * KiB })
    const before = read()
    page.protect('r')
    guest.read(0xa000)
    expect(translate(vm, 0xa000)).toMatchObject({ agrees: true, secondStage: { present: true, spte: { write: false } } })
    expect(diff(before, read())).toMatchObject([{ kind: 'permission', gpa: 0xa000 }])
  })

  test('every alias is told where one page is at two GPAs', (context) => {
    needsAll(context)
    const guest = Guest.create(vm)
    const page = Mapping.anonymous(4 * KiB)
    for (const gpa of [0xa000, 0x2_a000]) vm.memslots.create({ gpa, mapping: page })
    for (const gpa of [0xa000, 0x2_a000]) guest.write(gpa, 1n)
    const table = tables(vm)
    expect(hvaToGpa(table, page.address + 7)).toEqual([0xa007, 0x2_a007])
    expect(hpaToGpa(table, (translate(vm, 0xa000).hpa as number) + 7)).toEqual([0xa007, 0x2_a007])
    expect(hvaToGpa(table, 0x1000)).toEqual([])
    expect(hpaToGpa(table, 0)).toEqual([])
  })

  test('the way the host has its pages is told: anonymous, of a file, shared, zeros, absent', (context) => {
    needsAll(context)
    const folder = mkdtempSync(join(tmpdir(), 'node-kvm-translate-'))
    const path = join(folder, 'image')
    try {
      writeFileSync(path, new Uint8Array(8 * KiB).fill(1))
      const guest = Guest.create(vm)
      const read = Mapping.anonymous(4 * KiB)
      const kinds = {
        anonymous: Mapping.anonymous(4 * KiB),
        memfd: Mapping.memfd(4 * KiB),
        file: Mapping.file(path, 8 * KiB),
        untouched: Mapping.anonymous(4 * KiB)
      }
      Object.values(kinds).forEach((mapping, index) => vm.memslots.create({ gpa: 0xa000 + index * 0x1_0000, mapping }))
      vm.memslots.create({ gpa: 0x20_0000, mapping: read })
      for (const gpa of [0xa000, 0x1_a000]) guest.write(gpa, 1n)
      for (const gpa of [0x2_a000, 0x20_0000]) guest.read(gpa)
      const at = (gpa: number) => translate(vm, gpa)
      expect(at(0xa000)).toMatchObject({
        agrees: true,
        slot: { backing: 'anonymous' },
        host: { present: true, fileOrShared: false, anonymous: true }
      })
      expect(at(0x1_a000)).toMatchObject({ agrees: true, slot: { backing: 'memfd' }, host: { present: true, fileOrShared: true, anonymous: false } })
      expect(at(0x2_a000)).toMatchObject({ agrees: true, slot: { backing: 'file', path }, host: { present: true, fileOrShared: true } })
      expect(at(0x3_a000)).toMatchObject({ agrees: null, hpa: null, host: { present: false, swapped: false }, secondStage: { present: false } })
      // Reading untouched memory brings the page of zeros, unless KVM asks for a page that can be written.
      expect(at(0x20_0000)).toMatchObject({ agrees: true, host: { present: true, ksm: false, hugetlb: false } })
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('a huge page of the host is told as such', (context) => {
    needsAll(context)
    const memory = Mapping.anonymous(2 * MiB, { hugePages: true })
    memory.write(0, new Uint8Array([1]))
    vm.memslots.create({ gpa: 0x20_0000, mapping: memory })
    const { host } = translate(vm, 0x20_0000)
    if (!host?.transparentHuge) skip(context, 'the host gave no huge page')
    const table = tables(vm, { gpa: 0x20_0000, size: 2 * MiB })
    // Before Linux 6.7 the kernel has no PAGEMAP_SCAN to say by how large an entry a page is mapped.
    if (table.hugeKnown) {
      expect(host).toMatchObject({ huge: true })
      expect(table.host.every((bits) => (bits & hostBits.huge) !== 0)).toBe(true)
    } else expect(host.huge).toBeNull()
    expect(table.gpa).toHaveLength(512)
  })

  test('a slot whose memory is not there, a VM without a vCPU, and a part of a VM are translated', (context) => {
    needsAll(context)
    const memory = Mapping.anonymous(16 * KiB)
    vm.memslots.create({ gpa: 0xa000, mapping: memory })
    expect(translate(vm, 0xa000)).toMatchObject({
      hpa: null,
      host: { present: false, swapped: false },
      agrees: null,
      secondStage: { present: false }
    })
    // Without unrestricted guest (ept=0) KVM has memory of its own at higher addresses.
    expect(tables(vm, { gpa: 0, size: MiB }).gpa).toHaveLength(0)
    memory.fill(1)
    expect([...tables(vm, { gpa: 0xb000, size: 2 * 4096 }).gpa]).toEqual([0xb000, 0xc000])
    expect([...tables(vm, { gpa: 0xd000 }).gpa]).toEqual([0xd000])
  })

  test('bad arguments are refused', () => {
    for (const gpa of [-1, 1.5, Number.NaN, 2 ** 52, '0xa000', 10n, undefined])
      expect(checkedError(() => translate(vm, gpa as number), 'argument').argument).toBe('gpa')
    for (const gpa of [-1, 1.5, Number.NaN, '0']) expect(checkedError(() => tables(vm, { gpa: gpa as number }), 'argument').argument).toBe('gpa')
    for (const size of [-1, 1.5, Number.NaN, '0', 2 ** 53])
      expect(checkedError(() => tables(vm, { size: size as number }), 'argument').argument).toBe('size')
    for (const pid of [0, -1, 1.5, 'x']) expect(checkedError(() => hostVms({ pid: pid as number }), 'argument').argument).toBe('pid')
    vm.close()
    checkedError(() => translate(vm, 0xa000), 'closed')
    checkedError(() => tables(vm), 'closed')
  })
})

describe('diff', () => {
  interface Row {
    hpa?: number
    level?: number
    second?: number
    spte?: bigint
    mmio?: boolean
  }
  /** A table of one slot, with these pages from 0 on. */
  const table = (...rows: Row[]): Tables =>
    ({
      gpa: Float64Array.from(rows, (_, index) => index * 4096),
      hpa: Float64Array.from(rows, ({ hpa = 0 }) => hpa),
      secondHpa: Float64Array.from(rows, ({ second = 0 }) => second),
      spte: BigUint64Array.from(rows, ({ spte = 7n }) => spte),
      slot: new Uint32Array(rows.length),
      host: new Uint16Array(rows.length),
      level: Uint8Array.from(rows, ({ level = 0 }) => level),
      kind: Uint8Array.from(rows, ({ mmio }) => (mmio ? 4 : 1)),
      slots: [{ addressSpace: 0 }],
      format: 'ept'
    }) as unknown as Tables
  const kindsOf = (changes: Change[]) => changes.map(({ kind }) => kind)
  const one = { level: 1, second: 0x5000 }

  test.each([
    ['appeared', {}, one],
    ['vanished', one, {}],
    ['vanished', one, { level: 1, mmio: true }],
    ['moved', one, { level: 1, second: 0x6000 }],
    ['split', { level: 2, second: 0x5000 }, one],
    ['merged', one, { level: 2, second: 0x5000 }],
    ['permission', one, { ...one, spte: 5n }],
    ['host', { hpa: 0x5000 }, { hpa: 0x6000 }]
  ] as [string, Row, Row][])("finds a change of the kind '%s'", (kind, before, after) => {
    expect(kindsOf(diff(table(before), table(after)))).toEqual([kind])
    expect(diff(table(before), table(before))).toEqual([])
  })

  test('takes neighbours that changed alike for one change, and counts rows that only one side has', () => {
    expect(diff(table(one, one, {}), table({}, {}, one, one))).toMatchObject([
      { kind: 'vanished', gpa: 0, size: 8192 },
      { kind: 'appeared', gpa: 8192, size: 8192 }
    ])
  })

  test('takes what the processor sets by itself for no change', () => {
    expect(diff(table(one), table({ ...one, spte: 7n | (3n << 8n) }))).toEqual([])
  })
})

describe('the add-on', () => {
  const slot = { gpa: 0xa000, size: 4096, hva: 0x10_0000 }
  const slots = (fields: object = {}) => {
    const { gpa, size, hva } = { ...slot, ...fields }
    return { gpa: new Float64Array([gpa]), size: new Float64Array([size]), hva: new Float64Array([hva]), addressSpace: new Uint8Array(1) } as any
  }
  const leaves = (fields: { gpa?: number; hpa?: number; level?: number } = {}) =>
    ({
      gpa: new Float64Array([fields.gpa ?? 0xa000]),
      hpa: new Float64Array([fields.hpa ?? 0x5000]),
      spte: new BigUint64Array(1),
      level: new Uint8Array([fields.level ?? 1]),
      addressSpace: new Uint8Array(1),
      kind: new Uint8Array([1])
    }) as any
  const join = (one: unknown, other: unknown) => native.joinTables(null, one as any, other as any, 0, 2 ** 52) as any

  test('leaves out what no memslot can be, and entries that lead nowhere', () => {
    expect(join(slots(), leaves())).toMatchObject({ impossibleSlots: 0, gpa: new Float64Array([0xa000]) })
    for (const wrong of [
      { gpa: Number.NaN },
      { gpa: -4096 },
      { gpa: 1 },
      { gpa: 2 ** 52 },
      { size: 0 },
      { size: -4096 },
      { size: 2 ** 60 },
      { size: Number.POSITIVE_INFINITY },
      { hva: 2 ** 63 },
      { hva: 5 }
    ])
      expect({ wrong, ...join(slots(wrong), leaves()) }).toMatchObject({ wrong, impossibleSlots: 1, gpa: new Float64Array() })
    for (const wrong of [{ gpa: Number.NaN }, { gpa: -1 }, { gpa: 2 ** 64 }, { hpa: Number.NaN }, { hpa: 2 ** 60 }, { level: 0 }, { level: 200 }])
      expect({ wrong, ...join(slots(), leaves(wrong)) }).toMatchObject({ wrong, gpa: new Float64Array() })
  })

  test('refuses columns of other types or lengths, detached ones, and what is no object', () => {
    const detached = leaves()
    structuredClone(detached.hpa.buffer, { transfer: [detached.hpa.buffer] })
    const detachedByLookUp = Object.defineProperty({ ...leaves() }, 'kind', {
      get() {
        structuredClone(this.hpa.buffer, { transfer: [this.hpa.buffer] })
        return new Uint8Array(1)
      }
    })
    for (const wrong of [
      detached,
      detachedByLookUp,
      { ...leaves(), hpa: new Float64Array(2) },
      { ...leaves(), spte: new Float64Array(1) },
      { ...leaves(), level: [1] },
      { ...leaves(), kind: undefined },
      undefined,
      5
    ])
      expect(() => join(slots(), wrong)).toThrow(TypeError)
    expect(() => join({}, leaves())).toThrow(TypeError)
    for (const wrong of [undefined, null, 5, {}, { pid: -1 }, { pid: 'x' }]) expect(() => native.readTables(wrong as any)).toThrow()
  })
})

test(`the second stage here is ${describeHost().mmu}`, (context) => {
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  const guest = Guest.create(vm)
  // The host may drop every entry at any moment; KVM's own count then says so.
  const look = () => {
    guest.write(0x10_0000, 1n)
    const { leaves } = tables(vm)
    const { pages_4k, pages_2m, pages_1g } = vm.stats.read() as Record<string, number>
    return { leaves, mapped: pages_4k! + pages_2m! + pages_1g! }
  }
  let { leaves, mapped } = look()
  for (let looks = 1; mapped === 0 && looks < 5; looks++) ({ leaves, mapped } = look())
  // The kinds are TDP MMU entries on EPT and NPT, and shadow pages otherwise.
  const wanted = describeHost().tdpMmu ? [1, 4] : [2, 3, 4]
  expect(leaves.kind.length).toBeGreaterThan(0)
  expect([...leaves.kind].every((kind) => wanted.includes(kind))).toBe(true)
})

// Each reason has its own message, which says what helps.
describe('the reasons for which VMs cannot be read', () => {
  const able: ReadingHost = {
    kvmLoaded: true,
    btf: true,
    moduleBtf: true,
    lockdown: 'none',
    capabilities: { sysAdmin: true, bpf: true, perfmon: true },
    userNamespace: false
  }
  const failure: TableFailure = { step: 'program', error: -22, missingFields: 0, log: '' }
  const nobody = { sysAdmin: false, bpf: false, perfmon: false }

  test.each([
    [{ kvmLoaded: false }, 'kvm is not loaded', 'modprobe'],
    [{ btf: false }, 'no BTF (/sys/kernel/btf/vmlinux)', 'CONFIG_DEBUG_INFO_BTF'],
    [{ moduleBtf: false }, 'module kvm has no BTF', 'CONFIG_DEBUG_INFO_BTF_MODULES'],
    [{ lockdown: 'confidentiality' }, 'lockdown is at the level confidentiality', 'lockdown=integrity'],
    [{ capabilities: nobody }, 'no CAP_BPF and no CAP_PERFMON', '--ambient-caps'],
    [{ userNamespace: true }, 'in a user namespace', 'outside'],
    [{ capabilities: { ...nobody, bpf: true } }, 'no CAP_PERFMON', 'run as root']
  ] as [Partial<ReadingHost>, string, string][])('are told: %j', (lacks, why, remedy) => {
    const host = { ...able, ...lacks }
    expect(missingOnHost(host)).toEqual({ why: expect.stringContaining(why), remedy: expect.stringContaining(remedy) })
    expect(explainRefusal(failure, host)).toContain(why)
  })

  test('leave out what is no hindrance', () => {
    for (const lockdown of ['none', 'integrity', null]) expect(missingOnHost({ ...able, lockdown })).toBeNull()
    expect(missingOnHost({ ...able, capabilities: { sysAdmin: false, bpf: true, perfmon: true } })).toBeNull()
    expect(missingOnHost({ ...able, capabilities: { sysAdmin: true, bpf: false, perfmon: false } })).toBeNull()
  })

  test("name the field that a kernel's KVM lacks", () => {
    const bits = (1 << 2) | (1 << 18)
    expect(missingFieldNames(bits)).toEqual(['kvm.mmu_invalidate_seq', 'kvm_mmu_page.shadowed_translation'])
    expect(explainRefusal({ ...failure, step: 'fields', error: -95, missingFields: bits }, able)).toContain(
      'has no kvm.mmu_invalidate_seq, no kvm_mmu_page.shadowed_translation'
    )
  })

  test('say of any other refusal which step it was, which error, and the last that the verifier said', () => {
    expect(explainRefusal({ ...failure, log: 'line 1\nR1 invalid mem access\n' }, able)).toContain("at 'program' with EINVAL (R1 invalid mem access)")
  })

  test('what stands behind a slot is one kind, several, or nothing at all', () => {
    const mapping = (start: number, backing: HostMapping['backing'], path = ''): HostMapping => ({ start, end: start + 0x1000, backing, path })
    const mappings = [mapping(0x1000, 'anonymous'), mapping(0x2000, 'anonymous'), mapping(0x3000, 'file', '/image'), mapping(0x8000, 'memfd')]
    expect(backingOf(mappings, 0x1000, 0x1000)).toMatchObject({ backing: 'anonymous', path: '' })
    expect(backingOf(mappings, 0x1000, 0x2000)).toMatchObject({ backing: 'anonymous', path: '' })
    expect(backingOf(mappings, 0x2000, 0x2000)).toMatchObject({ backing: 'mixed', path: '/image' })
    expect(backingOf(mappings, 0x5000, 0x1000)).toMatchObject({ backing: 'unmapped', path: '' })
    expect(backingOf([], 0x5000, 0x1000)).toMatchObject({ backing: 'unknown', path: '' })
  })
})
