import { accessText, decodeEptQualification, decodeNestedPageFault, decodeSpte, type Spte, type TraceEvent, timeline } from 'node-kvm/observe'
import { describe, expect, test } from 'vitest'
import { Causes } from '../../lib/observe/trace/causes.js'
import { lowField, numberField, parseFormat, rawFields, wideField } from '../../lib/observe/trace/format.js'
import { Recorded, RecordedFault, RecordedRaw } from '../../lib/observe/trace/recorded.js'
import { type DecodeContext, tracepoints } from '../../lib/observe/trace/tracepoints.js'

/** The members that are set in a decoded value and not in that of 0. */
function gained(decode: (value: bigint) => object, bit: number): string[] {
  const zero = decode(0n) as Record<string, unknown>
  return Object.entries(decode(1n << BigInt(bit)))
    .filter(([name, value]) => value !== zero[name])
    .map(([name]) => name)
}

describe('why an access faulted, bit by bit', () => {
  // Intel SDM volume 3, table "Exit Qualification for EPT Violations".
  test.each([
    [0, 'dataRead'],
    [1, 'dataWrite'],
    [2, 'instructionFetch'],
    [3, 'readable'],
    [4, 'writable'],
    [5, 'executable'],
    [6, 'executableForUser'],
    [7, 'linearAddressValid'],
    [8, 'finalTranslation'],
    [9, 'userModeAddress'],
    [10, 'guestWritable'],
    [11, 'guestExecuteDisable'],
    [12, 'nmiUnblocking'],
    [13, 'shadowStackAccess'],
    [14, 'supervisorShadowStack'],
    [15, 'guestPagingVerification'],
    [16, 'asynchronous']
  ])('EPT: bit %d is %s', (bit, name) => {
    expect(gained(decodeEptQualification, bit)).toEqual([name])
  })
  test('EPT: bits 17 and above say nothing', () => {
    for (let bit = 17; bit < 64; bit++) expect(gained(decodeEptQualification, bit)).toEqual([])
  })
  test('EPT: 0x182 is a write through a valid linear address to a page that is not there', () => {
    const qualification = decodeEptQualification(0x182n)
    const set = Object.entries(qualification).flatMap(([name, value]) => (value ? [name] : []))
    expect(set).toEqual(['dataWrite', 'linearAddressValid', 'finalTranslation'])
  })

  // AMD APM volume 2, 15.25.6 and "#PF error code"; the SEV-SNP bits of 15.36.10.
  test.each([
    [0, 'present'],
    [1, 'write'],
    [2, 'user'],
    [3, 'reservedBit'],
    [4, 'instructionFetch'],
    [6, 'shadowStack'],
    [31, 'reverseMap'],
    [32, 'finalAddress'],
    [33, 'guestPageTables'],
    [34, 'encrypted'],
    [35, 'sizeMismatch'],
    [36, 'privilegeLevel'],
    [37, 'supervisorShadowStack']
  ])('NPT: bit %d is %s', (bit, name) => {
    expect(gained(decodeNestedPageFault, bit)).toEqual([name])
  })
  test('NPT: 0x100000014 is a fetch by the guest, of its final address', () => {
    const set = Object.entries(decodeNestedPageFault(0x1_0000_0014n)).flatMap(([name, value]) => (value ? [name] : []))
    expect(set).toEqual(['user', 'instructionFetch', 'finalAddress'])
  })
})

const present = 1n << 11n
const of = (format: 'ept' | 'x86', level: number, ...bits: number[]) =>
  decodeSpte(
    format,
    bits.reduce((value, bit) => value | (1n << BigInt(bit)), present),
    level
  )

describe('entries of the second stage, bit by bit', () => {
  // Intel SDM volume 3, 29.3.2; arch/x86/kvm/mmu/spte.h for KVM's own bits.
  test.each<[bit: number, level: number, says: Partial<Spte>]>([
    [0, 1, { read: true }],
    [1, 1, { write: true }],
    [2, 1, { execute: true }],
    [7, 1, { huge: false }],
    [7, 2, { huge: true }],
    [7, 3, { huge: true }],
    [8, 1, { accessed: true }],
    [9, 1, { dirty: true }],
    [57, 1, { hostWritable: true }],
    [58, 1, { mmuWritable: true }],
    [52, 1, { accessed: null, dirty: null }]
  ])('EPT: bit %d says what the manual says at level %d', (bit, level, says) => {
    expect(of('ept', level, bit)).toEqual({ ...of('ept', level), ...says, ...(bit === 7 && level > 1 && { memoryType: 'UC' }) })
  })
  test.each([
    [0n, 'UC'],
    [1n, 'WC'],
    [4n, 'WT'],
    [5n, 'WP'],
    [6n, 'WB'],
    [2n, null]
  ])('EPT: memory type %d is %s', (type, name) => {
    expect(decodeSpte('ept', present | (type << 3n), 1).memoryType).toBe(name)
  })
  test('EPT: an entry of a table has no memory type', () => {
    expect(decodeSpte('ept', present | 7n, 2)).toMatchObject({ huge: false, memoryType: null })
  })

  // AMD APM volume 2, 5.3 and 15.25: NPT, and shadow pages, are the processor's ordinary tables.
  test.each<[bit: number, level: number, says: Partial<Spte>]>([
    [0, 1, { read: true, execute: true }],
    [1, 1, { write: true }],
    [5, 1, { accessed: true }],
    [6, 1, { dirty: true }],
    [7, 1, { huge: false }],
    [7, 2, { huge: true }],
    [9, 1, { hostWritable: true }],
    [10, 1, { mmuWritable: true }],
    [63, 1, { execute: false }]
  ])('NPT and shadow: bit %d says what the manual says at level %d', (bit, level, says) => {
    expect(of('x86', level, bit)).toEqual({ ...of('x86', level), ...says })
  })
  test('NPT and shadow: bit 63 takes execution away', () => {
    expect(accessText(of('x86', 1, 0, 63))).toBe('r--')
  })
  test.each(['ept', 'x86'] as const)('%s: the address is bits 12 to 51', (format) => {
    expect(decodeSpte(format, 0xffff_ffff_ffff_ffffn, 1).hpa).toBe(0x000f_ffff_ffff_f000)
    for (let bit = 12; bit < 52; bit++) expect(of(format, 1, bit).hpa).toBe(2 ** bit)
  })
  // These were seen in the lab, and decoded by hand.
  test.each([
    ['ept', 0x6000000032a3b77n, 1, 'rwx', 0x32a3000],
    ['ept', 0x6000000029e3b77n, 1, 'rwx', 0x29e3000]
  ] as const)('an entry for %s is decoded as by hand: %d', (format, spte, level, access, hpa) => {
    const decoded = decodeSpte(format, spte, level)
    expect(accessText(decoded)).toBe(access)
    expect(decoded).toMatchObject({ present: true, hpa, memoryType: 'WB', accessed: true, dirty: true, hostWritable: true, mmuWritable: true })
  })
  test.each([0n, 0x8000_0000_0000_0000n, 0x5a0n, 0x8000_0000_0000_05a0n])('%d is no entry', (spte) => {
    for (const format of ['ept', 'x86'] as const) expect(decodeSpte(format, spte, 1).present).toBe(false)
  })
})

describe('formats', () => {
  const text = `name: made_up
ID: 1234
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:unsigned char flag;	offset:8;	size:1;	signed:0;
	field:short small;	offset:10;	size:2;	signed:1;
	field:int number;	offset:12;	size:4;	signed:1;
	field:u64 wide;	offset:16;	size:8;	signed:0;
	field:char comm[16];	offset:24;	size:16;	signed:0;
`
  const format = parseFormat('kvm/made_up', text)
  const view = new DataView(new ArrayBuffer(64))
  view.setUint8(8, 200)
  view.setInt16(10, -2, true)
  view.setInt32(12, -3, true)
  view.setBigUint64(16, 0x8000_0000_0000_0801n, true)
  test('fields are read in every size and sign', () => {
    expect(format.id).toBe(1234)
    expect(rawFields(format, view, 0)).toEqual({ flag: 200, small: -2, number: -3, wide: 0x8000_0000_0000_0801n })
    expect(lowField(format, 'wide')(view, 0)).toBe(0x801)
    expect(wideField(format, 'number')(view, 0)).toBe(-3n)
  })
  test('a field that this kernel lacks is 0', () => {
    expect(numberField(format, 'other')(view, 0)).toBe(0)
    expect(wideField(format, 'other')(view, 0)).toBe(0n)
  })
})

const entry = 0x6000000000a0b77n
/** Events as a trace makes them, given only what differs; they are a microsecond apart. */
function story(...parts: (Partial<TraceEvent> & { kind: TraceEvent['kind'] })[]): TraceEvent[] {
  const causes = new Causes()
  return parts.map((part, index) => {
    const event = { time: (index + 1) * 1000, elapsed: (index + 1) / 1000, process: 1, thread: 1, cpu: 0, raw: {}, ...part } as unknown as TraceEvent
    causes.follow(event)
    return event
  })
}
const change = (gfn: number, old: bigint, now: bigint, more: object = {}) => ({
  kind: 'spte-change' as const,
  gfn,
  level: 1,
  old,
  new: now,
  before: decodeSpte('ept', old, 1),
  after: decodeSpte('ept', now, 1),
  wasPresent: old !== 0n,
  isPresent: now !== 0n,
  addressSpace: 0,
  ...more
})
const set = (gfn: number) => ({ kind: 'spte-set' as const, gfn, level: 1, spte: entry, decoded: decodeSpte('ept', entry, 1), mmio: false })
const violation = (gpa: number, more: object = {}) => ({
  kind: 'violation' as const,
  vcpu: 0,
  gpa,
  access: 'read' as const,
  present: false,
  rip: 0x1000n,
  ...more
})
const unmap = (gpa: number, size: number, more: object = {}) => ({
  kind: 'notifier-unmap' as const,
  hva: 0x7000_0000 + gpa,
  size,
  gpas: [{ slot: 0, gpa, size }],
  ...more
})
const call = (more: object) => ({ kind: 'mapping' as const, did: 'advise(dontneed)', hva: 0x7000_a000, size: 4096, duration: 5000, ...more })
const kindsOf = (events: TraceEvent[]) => events.map(({ cause }) => cause?.kind)

describe('causes', () => {
  test('a call leads to its notifier call, to the entry that this took, and to the access after', () => {
    const events = story(call({}), unmap(0xa000, 4096), change(0xa, entry, 0n), violation(0xa000), change(0xa, 0n, entry), set(0xa))
    expect(kindsOf(events)).toEqual([undefined, 'mapping', 'notifier-unmap', 'notifier-unmap', 'violation', 'violation'])
  })
  test("another thread's notifier call during a call is not the call's", () => {
    expect(kindsOf(story(call({}), unmap(0xa000, 4096, { thread: 2 })))).toEqual([undefined, undefined])
  })
  test("a notifier call of other memory, or after the end of the call, is not the call's", () => {
    expect(kindsOf(story(call({}), unmap(0xb000, 4096)))).toEqual([undefined, undefined])
    expect(kindsOf(story(call({ duration: 500 }), unmap(0xa000, 4096)))).toEqual([undefined, undefined])
  })
  test('the notifier call of ksmd has the entry that it took, in its thread', () => {
    const [, dropped] = story(unmap(0xa000, 4096, { thread: 33 }), change(0xa, entry, 0n, { thread: 33 }))
    expect(dropped?.cause).toMatchObject({ kind: 'notifier-unmap', thread: 33 })
  })
  test('an entry outside what the notifier call hit was not taken by it; nor one taken after something else', () => {
    expect(kindsOf(story(unmap(0xa000, 4096), change(0xb, entry, 0n)))).toEqual([undefined, undefined])
    expect(kindsOf(story(unmap(0xa000, 4096), violation(0xc000), change(0xa, entry, 0n)))).toEqual([undefined, undefined, undefined])
  })
  test('a slot change takes entries, whatever notifier call came before', () => {
    const slot = { id: 0, gpa: 0xa000, size: 4096, hva: 0x7000_a000 }
    const moved = { kind: 'memslot' as const, did: 'move' as const, before: slot, after: { ...slot, gpa: 0xe000 }, duration: 5000 }
    const events = story(unmap(0xa000, 4096), moved, { kind: 'zap-all' }, change(0xa, entry, 0n))
    expect(kindsOf(events)).toEqual([undefined, undefined, 'memslot', 'memslot'])
  })
  test("another process's zap of all has the entries that its thread then takes, until it does something else", () => {
    const events = story(
      { kind: 'zap-all' },
      change(0xa, entry, 0n),
      change(0xb, entry, 0n, { thread: 2 }),
      violation(0xa000),
      change(0xc, entry, 0n)
    )
    expect(kindsOf(events)).toEqual([undefined, 'zap-all', undefined, 'zap-all', undefined])
  })
  test('the notifier call and the drop of copy on write belong to the access, and the next access has no cause in it', () => {
    const events = story(
      violation(0xa000, { present: true, access: 'write' }),
      unmap(0xa000, 4096),
      change(0xa, entry, 0n),
      change(0xa, 0n, entry),
      set(0xa),
      violation(0xa000, { access: 'write' })
    )
    expect(kindsOf(events)).toEqual([undefined, 'violation', 'notifier-unmap', 'violation', 'violation', undefined])
  })
  test('a first touch after every entry was dropped is no return', () => {
    expect(kindsOf(story(change(0xa, entry, 0n), { kind: 'zap-all' }, violation(0xb000)))).toEqual([undefined, undefined, undefined])
  })
  test('a page comes back by what swept over it since it was set, where no entry is told of', () => {
    const events = story(set(0xa), unmap(0xa000, 4096), set(0xa), set(0xa), set(0xb))
    expect(kindsOf(events)).toEqual([undefined, undefined, 'notifier-unmap', undefined, undefined])
  })
  test('of several sweeps the first took it; of those too long ago nobody knows', () => {
    const events = story(set(0xa), unmap(0xa000, 4096), unmap(0xa000, 8192), set(0xa))
    expect(events[3]?.cause).toBe(events[1])
    const many = story(set(0xa), ...Array.from({ length: 300 }, () => unmap(0xa000, 4096)), set(0xa))
    expect(many.at(-1)?.cause).toBeUndefined()
  })
  test('an entry for MMIO is no page that was taken away', () => {
    const events = story(set(0xa), unmap(0xa000, 4096), { ...set(0xa), mmio: true }, { kind: 'zap-all' }, set(0xa))
    expect(events[4]?.cause).toBe(events[1])
  })
  test('an emulated access is of its violation', () => {
    const mmio = { kind: 'mmio' as const, access: 'write' as const, gpa: 0xa008, length: 8, value: 0n }
    expect(kindsOf(story(violation(0xa008), mmio))).toEqual([undefined, 'violation'])
    expect(kindsOf(story(violation(0xa008), { ...set(0xa), mmio: true }, mmio))).toEqual([undefined, 'violation', 'violation'])
  })
})

describe('the timeline', () => {
  test('tells what led to what, and the access after as a story of its own', () => {
    const events = story(call({}), unmap(0xa000, 4096), change(0xa, entry, 0n), violation(0xa000), change(0xa, 0n, entry), set(0xa))
    expect(timeline(events)).toBe(
      [
        '     0.001 ms  mapping advise(dontneed) 0x7000a000 4 KiB',
        '      +1.0 us    -> notifier unmap 0x7000a000-0x7000b000 -> gpa 0xa000-0xb000 (slot 0)',
        '      +2.0 us      -> spte gfn 0xa level 1: rwx hpa 0xa0000 -> none',
        '     0.004 ms  violation gpa 0xa000 read (not present) at rip 0x1000, after mapping advise(dontneed)',
        '      +1.0 us    -> spte gfn 0xa level 1: none -> rwx hpa 0xa0000',
        '      +2.0 us    -> spte gfn 0xa level 1 set: rwx hpa 0xa0000'
      ].join('\n')
    )
  })
  test('stories that differ in addresses alone are told once', () => {
    const events = story(...[0xa, 0xb, 0xc].flatMap((gfn) => [violation(gfn * 4096), change(gfn, 0n, entry), set(gfn)]))
    expect(timeline(events)).toBe(
      [
        '     0.001 ms  violation gpa 0xa000 … 0xc000 read (not present) at rip 0x1000 x3',
        '      +1.0 us    -> spte gfn 0xa … 0xc level 1: none -> rwx hpa 0xa0000',
        '      +2.0 us    -> spte gfn 0xa … 0xc level 1 set: rwx hpa 0xa0000'
      ].join('\n')
    )
  })
  test('an event whose cause was drained before begins a story', () => {
    const events = story(call({}), unmap(0xa000, 4096))
    expect(timeline(events.slice(1))).toMatch(/^ +0.002 ms {2}notifier unmap/)
    expect(timeline([])).toBe('')
  })
})

describe('guest-virtual addresses and RIP keep all 64 bits', () => {
  const kernel = 0xffff_ffff_81ab_cdefn
  const linear = 0xffff_8880_1234_5677n
  // The places are this test's own; the names are the kernel's.
  const wideNames = ['guest_rip', 'rip', 'fault_address', 'error_code', 'info1']
  const narrowNames = ['exit_reason', 'isa', 'vcpu_id', 'failed']
  const at = 8
  const lines = [...wideNames, ...narrowNames].map(
    (name, place) => `\tfield:u64 ${name};\toffset:${at + 8 * place};\tsize:${wideNames.includes(name) ? 8 : 4};\tsigned:0;`
  )
  const text = `name: some\nID: 7\nformat:\n${lines.join('\n')}\n`
  const format = parseFormat('kvm/some', text)

  function record(fields: Record<string, bigint>): DataView {
    // The head of a sample (36 bytes) comes first, then the fields.
    const view = new DataView(new ArrayBuffer(256))
    view.setUint16(6, 200, true)
    for (const [name, value] of Object.entries(fields)) {
      const { offset, size } = format.fields.get(name) as { offset: number; size: number }
      if (size === 8) view.setBigUint64(36 + offset, value, true)
      else view.setUint32(36 + offset, Number(value), true)
    }
    return view
  }
  const context = (): DecodeContext => ({ wanted: new Set(kinds), rows: null, everywhere: true, faulting: new Map(), misconfigs: new Map() })
  const kinds = ['exit', 'entry', 'emulate', 'guest-fault', 'misconfig', 'violation'] as const
  function decoded(event: string, fields: Record<string, bigint>, shared = context()): Record<string, unknown> {
    const point = tracepoints.find((each) => each.event === event)
    const view = record(fields)
    const made = new (point?.record ?? Recorded)({ format, spteFormat: 'ept', start: 0 }, view, 0, 1)
    expect(point?.decoder(format, shared)(made, view, 36)).toBe(true)
    return made as unknown as Record<string, unknown>
  }

  test.each([
    ['kvm/kvm_exit', { guest_rip: kernel, exit_reason: 12n, isa: 1n }, { kind: 'exit', rip: kernel }],
    ['kvm/kvm_exit', { guest_rip: kernel, exit_reason: 49n, isa: 1n }, { kind: 'misconfig', rip: kernel }],
    ['kvm/kvm_entry', { rip: kernel, vcpu_id: 3n }, { kind: 'entry', rip: kernel, vcpu: 3 }],
    ['kvm/kvm_emulate_insn', { rip: kernel, failed: 1n }, { kind: 'emulate', rip: kernel, failed: true }],
    [
      'kvm/kvm_page_fault',
      { guest_rip: kernel, fault_address: linear, error_code: 1n << 34n },
      { kind: 'guest-fault', rip: kernel, address: linear, errorCode: 0x4_0000_0000n }
    ]
  ])('in %s', (event, fields, expected) => {
    const made = decoded(event, fields)
    expect({ kind: made['kind'], rip: made['rip'] }).toEqual({ kind: expected.kind, rip: expected.rip })
    expect(made).toMatchObject(expected)
    // The value shows as text, in a story, and in JSON.
    expect(String(made)).toContain('0xffffffff81abcdef')
    expect(JSON.parse(JSON.stringify(made))).toMatchObject({ rip: '0xffffffff81abcdef' })
    expect(timeline([made as unknown as TraceEvent])).toContain('0xffffffff81abcdef')
  })
  test('a violation has the RIP of its exit, and a number for its guest-physical address', () => {
    const shared = context()
    decoded('kvm/kvm_exit', { guest_rip: kernel, exit_reason: 48n, isa: 1n }, shared)
    const made = decoded('kvm/kvm_page_fault', { fault_address: 0xf_ffff_ffff_f000n, error_code: 0x182n }, shared)
    expect(made).toMatchObject({ kind: 'violation', rip: kernel, gpa: 0xf_ffff_ffff_f000, access: 'write' })
    expect(made).toBeInstanceOf(RecordedFault)
  })
  test('raw fields of 8 bytes are bigints, small ones too', () => {
    const view = record({ info1: 5n, fault_address: linear, isa: 2n })
    const made = new RecordedRaw({ format, spteFormat: 'ept', start: 0 }, view, 0, 1)
    expect(made.raw).toMatchObject({ info1: 5n, fault_address: linear, isa: 2 })
    expect(JSON.parse(JSON.stringify(made))).toMatchObject({ raw: { info1: '0x5', fault_address: '0xffff888012345677', isa: 2 } })
  })
})
