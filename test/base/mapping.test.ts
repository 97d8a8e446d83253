import { existsSync, readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GiB, KiB, Kvm, Mapping, MiB } from 'node-kvm'
import { readPagemap, tables } from 'node-kvm/observe'
import { afterAll, describe, expect, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { needsFrames, needsKvm } from '../support/needs.js'
import { outputOf } from '../support/program.js'
import { skip, skipWhereSlow } from '../support/skip.js'

const file = join(tmpdir(), `node-kvm-mapping-${process.pid}`)
writeFileSync(file, Buffer.alloc(16 * KiB, 'x'))
afterAll(() => unlinkSync(file))

const makers = {
  anonymous: () => Mapping.anonymous(64 * KiB),
  memfd: () => Mapping.memfd(64 * KiB)
}

describe.each(Object.entries(makers))('%s memory', (_, make) => {
  test('starts zeroed, keeps what is written, copies what is read', () => {
    using mapping = make()
    expect(mapping.read(0, 4)).toEqual(new Uint8Array(4))
    mapping.write(100, new Uint8Array([1, 2, 3]))
    const copy = mapping.read(100, 3)
    mapping.fill(9)
    expect([...copy]).toEqual([1, 2, 3])
    expect([...mapping.read(64 * KiB - 2, 2)]).toEqual([9, 9])
  })

  test('remap puts another frame under each page that is there, and none where there is none', (context) => {
    needsFrames(context)
    using mapping = make()
    mapping.fill(1, 16 * KiB, 32 * KiB)
    const frames = () => readPagemap(mapping.address, 16).map(({ hpa }) => hpa ?? 0)
    for (let round = 0; round < 20; round++) {
      const before = frames()
      mapping.remap()
      const after = frames()
      expect(after.map((frame) => frame !== 0)).toEqual(before.map((frame) => frame !== 0))
      expect(after.filter((frame) => frame !== 0 && before.includes(frame))).toEqual([])
      expect(after.filter((frame) => frame !== 0)).toHaveLength(8)
      // toEqual() takes a second for each such array in an emulated machine.
      expect(mapping.read(16 * KiB, 32 * KiB).every((byte) => byte === 0)).toBe(true)
    }
  })

  test('remap puts zeroed pages, or given content, under the same address', () => {
    using mapping = make()
    const { address } = mapping
    mapping.fill(7)
    mapping.remap(4 * KiB, 4 * KiB)
    expect(mapping.address).toBe(address)
    expect(mapping.read(4095, 2)).toEqual(new Uint8Array([7, 0]))
    mapping.remap(8 * KiB, 4 * KiB, new Uint8Array(4 * KiB).fill(5))
    expect(mapping.read(8 * KiB - 1, 2)).toEqual(new Uint8Array([0, 5]))
    expect(mapping.read(12 * KiB, 1)).toEqual(new Uint8Array([7]))
  })

  test('protected memory is an error to read, not a crash', () => {
    using mapping = make()
    mapping.fill(3)
    mapping.protect('none', 0, 4 * KiB)
    expect(checkedError(() => mapping.read(0, 1), 'memory').errno).toBe('EFAULT')
    expect(checkedError(() => mapping.fill(1), 'memory').errno).toBe('EFAULT')
    mapping.protect('r')
    expect([...mapping.read(0, 1)]).toEqual([3])
    checkedError(() => mapping.write(0, new Uint8Array(1)), 'memory')
    mapping.protect('rw')
    mapping.write(0, new Uint8Array([8]))
    expect([...mapping.read(0, 1)]).toEqual([8])
  })

  test('the live buffer is one object, sees writes, and forbids a protection under which it could crash', () => {
    const mapping = make()
    const bytes = new Uint8Array(mapping.buffer)
    expect(mapping.buffer).toBe(bytes.buffer)
    bytes[5] = 42
    expect([...mapping.read(5, 1)]).toEqual([42])
    mapping.write(6, new Uint8Array([43]))
    expect(bytes[6]).toBe(43)
    expect(checkedError(() => mapping.protect('none'), 'memory').errno).toBe('EBUSY')
    checkedError(() => mapping.close(), 'in-use')
    mapping[Symbol.dispose]()
    expect(bytes[5]).toBe(42)
    checkedError(() => mapping.buffer, 'closed')
  })

  test('closing twice does nothing, and use after close is an error', () => {
    const mapping = make()
    mapping.close()
    mapping.close()
    for (const use of [
      () => mapping.read(0, 1),
      () => mapping.write(0, new Uint8Array(1)),
      () => mapping.fill(0),
      () => mapping.remap(),
      () => mapping.advise('dontneed'),
      () => mapping.protect('r')
    ])
      checkedError(use, 'closed')
  })
})

test('a file that does not exist, or cannot be written where it must be, is named', () => {
  expect(checkedError(() => Mapping.file('/nonexistent/file', 4 * KiB), 'memory').message).toContain('/nonexistent/file')
  expect(checkedError(() => Mapping.file('/proc/version', 4 * KiB, { shared: true }), 'memory').errno).toMatch(/EACCES|ENODEV|EIO/)
})

test('a file is mapped, and its truncation by others is an error, not a crash', () => {
  using mapping = Mapping.file(file, 16 * KiB, { shared: true })
  expect([...mapping.read(0, 1)]).toEqual(['x'.charCodeAt(0)])
  checkedError(() => mapping.buffer, 'unavailable')
  truncateSync(file, 4 * KiB)
  checkedError(() => mapping.read(8 * KiB, 1), 'memory')
  checkedError(() => mapping.write(8 * KiB, new Uint8Array(1)), 'memory')
  expect(() => Mapping.file(`${file}.absent`, 4 * KiB)).toThrow(/ENOENT/)
})

test('a hole gives the pages of a memfd and of a shared file back, and no others', () => {
  using memfd = Mapping.memfd(16 * KiB)
  writeFileSync(file, new Uint8Array(16 * KiB))
  using shared = Mapping.file(file, 16 * KiB, { shared: true })
  for (const mapping of [memfd, shared]) {
    mapping.fill(7)
    mapping.punchHole(4 * KiB, 4 * KiB)
    expect([4095, 4096, 8191, 8192].map((offset) => mapping.read(offset, 1)[0])).toEqual([7, 0, 0, 7])
  }
  memfd.remap(0, 4 * KiB)
  using anonymous = Mapping.anonymous(16 * KiB)
  using own = Mapping.file(file, 16 * KiB)
  for (const mapping of [memfd, anonymous, own]) expect(checkedError(() => mapping.punchHole(), 'memory').errno).toBe('EOPNOTSUPP')
  expect(checkedError(() => shared.punchHole(1, 4 * KiB), 'argument').argument).toBe('offset')
})

const pool = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'
const poolSize = () => Number(readFileSync(pool, 'utf8'))

test('hugetlb memory works, or the error says how to get it', (context) => {
  const before = existsSync(pool) ? poolSize() : skip(context, 'this kernel has no pool of 2 MiB pages')
  if (process.getuid?.() !== 0 && before === 0) return skip(context, 'the pool of huge pages is empty, and only root may fill it')
  try {
    if (before === 0) {
      expect(checkedError(() => Mapping.hugetlb(2 * MiB), 'memory').message).toContain('nr_hugepages')
      writeFileSync(pool, '2')
    }
    if (poolSize() === 0) return skip(context, 'the kernel found no free huge page')
    using mapping = Mapping.hugetlb(2 * MiB)
    mapping.fill(1)
    expect([...mapping.read(2 * MiB - 1, 1)]).toEqual([1])
    checkedError(() => mapping.buffer, 'unavailable')
    checkedError(() => Mapping.hugetlb(3 * MiB), 'argument')
  } finally {
    if (poolSize() !== before) writeFileSync(pool, String(before))
  }
})

test('an address is honoured, and never takes over memory that is mapped', () => {
  // The free addresses differ by run and by sanitizer, but the middle of the gap that a large mapping leaves is free.
  const gap = Mapping.anonymous(1024 * MiB)
  const address = gap.address + 512 * MiB
  gap.close()
  using first = Mapping.anonymous(16 * KiB, { address, fixed: true })
  expect(first.address).toBe(address)
  expect(checkedError(() => Mapping.anonymous(4 * KiB, { address: address + 4 * KiB, fixed: true }), 'memory').errno).toBe('EEXIST')
  checkedError(() => Mapping.anonymous(4 * KiB, { fixed: true }), 'argument')
  checkedError(() => Mapping.anonymous(4 * KiB, { address: 123 }), 'argument')
})

test('large anonymous memory is aligned so that huge pages can form', () => {
  using mapping = Mapping.anonymous(4 * MiB, { hugePages: true, populate: true })
  expect(mapping.address % (2 * MiB)).toBe(0)
})

test('a mapping behind a slot outlives its handle, and closing it by name says what holds it', (context) => {
  needsKvm(context)
  using kvm = Kvm.open()
  using vm = kvm.createVm()
  const mapping = Mapping.anonymous(8 * KiB)
  const slot = vm.memslots.create({ gpa: 0, mapping })
  expect(checkedError(() => mapping.close(), 'in-use').message).toContain('1 memslot')
  expect([...mapping.read(0, 1)]).toEqual([0])
  mapping[Symbol.dispose]()
  slot.move(0x8000)
  slot.resize(4 * KiB)
  expect(slot).toMatchObject({ gpa: 0x8000, size: 4 * KiB })
  slot.delete()
  mapping.close()
})

/** Kilobytes of huge pages in a mapping, from /proc/self/smaps. */
function hugeIn({ address }: Mapping): number {
  const smaps = readFileSync('/proc/self/smaps', 'utf8')
  const own = smaps.slice(smaps.indexOf(`${address.toString(16)}-`))
  return Number(/^AnonHugePages:\s+(\d+)/m.exec(own)?.[1])
}

test('what is populated is huge if that is asked for, and is not if that is forbidden', (context) => {
  const policy = '/sys/kernel/mm/transparent_hugepage/enabled'
  if (!existsSync(policy) || readFileSync(policy, 'utf8').includes('[never]')) skip(context, 'transparent huge pages are off')
  const resident = (mapping: Mapping) => readPagemap(mapping.address, mapping.size / (4 * KiB)).every(({ present }) => present)
  using small = Mapping.anonymous(8 * MiB, { hugePages: false, populate: true })
  expect([resident(small), hugeIn(small)]).toEqual([true, 0])
  using huge = Mapping.anonymous(8 * MiB, { hugePages: true, populate: true })
  expect(resident(huge)).toBe(true)
  using touched = Mapping.anonymous(8 * MiB, { hugePages: true })
  touched.fill(1)
  if (hugeIn(touched) === 0) skip(context, 'the host has no huge page to give')
  expect(hugeIn(huge)).toBeGreaterThan(0)
})

test('what cannot be populated is an error, and nothing stays mapped', () => {
  writeFileSync(file, new Uint8Array(4 * KiB))
  const maps = () => readFileSync('/proc/self/maps', 'utf8').split(file).length
  const before = maps()
  for (const shared of [false, true])
    expect(checkedError(() => Mapping.file(file, 16 * KiB, { shared, populate: true }), 'memory').errno).toBe('EFAULT')
  expect(maps()).toBe(before)
})

test('a live buffer of more than 4 GiB is made, or an error says that this Node makes none, and the mapping goes on', (context) => {
  skipWhereSlow(context)
  const program = `
    const size = 5 * GiB, mapping = Mapping.memfd(size)
    const bufferOf = () => {
      try { return mapping.buffer.byteLength === size && new Uint8Array(mapping.buffer).fill(7, size - 1)[size - 1] }
      catch (error) { return error.code }
    }
    const first = bufferOf(), second = bufferOf()
    // Finalizers may run at once, in a later turn, or not at all.
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
    gc()
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
    mapping.write(size - 2, new Uint8Array([5]))
    console.log(first, second, ...mapping.read(size - 2, 2))
    if (first === 'unavailable') mapping.close()
    console.log(resultOf(() => mapping[Symbol.dispose]()))`
  const [buffers, end] = outputOf(program, { flags: ['--expose-gc'] })
  expect(['7 7 5 7', 'unavailable unavailable 5 0']).toContain(buffers)
  expect(end).toBe('worked')
})

test.each(['forwards', 'backwards'])('bytes are copied %s within the memory that a live buffer shows', (way) => {
  using mapping = Mapping.anonymous(MiB)
  const bytes = new Uint8Array(mapping.buffer)
  bytes.forEach((_, index) => {
    bytes[index] = (index * 7) >> 3
  })
  const [from, to] = way === 'forwards' ? [0, 1] : [1, 0]
  const length = 60_000
  const expected = bytes.slice(from, from + length)
  mapping.write(to, bytes.subarray(from, from + length))
  expect(Buffer.compare(bytes.subarray(to, to + length), expected)).toBe(0)
  const again = bytes.slice(from, from + length)
  mapping.readInto(from, bytes.subarray(to, to + length))
  expect(Buffer.compare(bytes.subarray(to, to + length), again)).toBe(0)
})

test('the pages of a large and almost empty memory are found, and remapped each at its place', (context) => {
  needsKvm(context)
  using kvm = Kvm.open()
  using vm = kvm.createVm()
  const size = 1024 * GiB
  using mapping = Mapping.memfd(size)
  // Two places lie beyond the 4 GiB below which each page is looked at, but near enough for kernels that know no ranges.
  const places = [0, 4096, 4 * GiB + 8192, 5 * GiB]
  for (const offset of places) mapping.write(offset, new Uint8Array([1]))
  const slots = [0, 600 * GiB].map((offset) => vm.memslots.create({ gpa: offset, mapping, offset, size: 8 * GiB }))
  const told = () => Array.from(tables(vm).gpa)
  expect(told()).toEqual(places)
  mapping.remap()
  expect(told()).toEqual(places)
  expect(places.map((offset) => mapping.read(offset, 1)[0])).toEqual([0, 0, 0, 0])
  for (const slot of slots) slot.delete()
})

describe('bad input', () => {
  test.each([0, -4096, 1, 1.5, Number.NaN, 2 ** 53, '4096', undefined])('a size of %s is refused', (size) => {
    expect(checkedError(() => Mapping.anonymous(size as number), 'argument').argument).toBe('size')
  })
  test('more memory than there are addresses is refused', () => {
    expect(checkedError(() => Mapping.anonymous(2 ** 50), 'memory').errno).toBe('ENOMEM')
  })
  test('ranges past the end, and values of the wrong type, are refused', () => {
    using mapping = Mapping.anonymous(4 * KiB)
    for (const use of [
      () => mapping.read(4 * KiB, 1),
      () => mapping.read(-1, 1),
      () => mapping.read(0, -1),
      () => mapping.read(Number.NaN, 1),
      () => mapping.write(4095, new Uint8Array(2)),
      () => mapping.write(0, 'x' as never),
      () => mapping.write(0, [1] as never),
      () => mapping.fill(256),
      () => mapping.fill(1, 1, 4 * KiB),
      () => mapping.remap(1),
      () => mapping.remap(0, 0),
      () => mapping.remap(0, 4 * KiB, new Uint8Array(5)),
      () => mapping.advise('nonsense' as never),
      () => mapping.protect('w' as never),
      () => Mapping.anonymous(4 * KiB, { hugepages: true } as never)
    ])
      checkedError(use, 'argument')
  })
})
