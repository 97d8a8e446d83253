import { AsyncLocalStorage } from 'node:async_hooks'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FaultHandler, KiB, Mapping, MiB, type PageFault } from 'node-kvm'
import { assemble, Guest } from 'node-kvm/testing'
import { afterAll, describe, expect, type TestContext, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { needsPaging } from '../support/needs.js'
import { gpa, pageSize, pattern, patternOf, wordOf } from '../support/paging.js'
import { patience } from '../support/patience.js'
import { inLab, skip } from '../support/skip.js'
import { Uncaught } from '../support/uncaught.js'
import { kvm, vm } from '../support/vm.js'
import { Writer } from '../support/writer.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-paging-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function patternFile(name: string, pages: number): string {
  const path = join(folder, name)
  writeFileSync(path, Buffer.concat(Array.from({ length: pages }, (_, page) => patternOf(page))))
  return path
}

// Case D02.
describe('missing pages', () => {
  test('come from a file by a native thread: the guest sees the pattern, on the thread that made it', (context) => {
    needsPaging(context)
    const pages = inLab ? 64 : 512
    using ram = Mapping.anonymous(pages * pageSize)
    using paging = ram.onMissing({ file: patternFile('pattern', pages - 2) })
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    for (let page = pages - 1; page >= 0; page--)
      expect(guest.read(gpa + page * pageSize)).toEqual({ reason: 'done', value: page < pages - 2 ? wordOf(page) : 0n })
    expect(paging.served).toBe(pages)
  })

  test.for(['anonymous', 'memfd'] as const)('of %s memory come from bytes, read by the library and by the guest', (kind, context) => {
    needsPaging(context)
    using ram = Mapping[kind](8 * pageSize)
    using paging = ram.onMissing({ content: Buffer.concat([patternOf(7), patternOf(8)]) })
    vm.memslots.create({ gpa, mapping: ram })
    expect(ram.read(pageSize - 8, 16)).toEqual(new Uint8Array(new BigUint64Array([wordOf(7), wordOf(8)]).buffer))
    expect(vm.memory.read(gpa + 2 * pageSize, 4 * pageSize)).toEqual(new Uint8Array(4 * pageSize))
    vm.memory.write(gpa + 6 * pageSize, new Uint8Array([1]))
    expect(Guest.create(vm).read(gpa + 6 * pageSize)).toEqual({ reason: 'done', value: 1n })
    expect(paging.served).toBe(7)
  })

  test('come from JavaScript where run() is on the same thread: it is interrupted to ask, and the guest sees the pattern', (context) => {
    needsPaging(context)
    const faults: PageFault[] = []
    using ram = Mapping.anonymous(64 * pageSize)
    using paging = ram.onMissing((fault) => {
      faults.push(fault)
      return pattern(fault)
    })
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    for (const page of [3, 60, 4]) expect(guest.read(gpa + page * pageSize)).toEqual({ reason: 'done', value: wordOf(page) })
    expect(guest.write(gpa + 9 * pageSize + 8, 5n).reason).toBe('done')
    expect(ram.read(9 * pageSize, 24)).toEqual(new Uint8Array(new BigUint64Array([wordOf(9), 5n, wordOf(9)]).buffer))
    // Each page comes once, however often its fault was interrupted.
    expect(faults.map(({ offset }) => offset / pageSize)).toEqual([3, 60, 4, 9])
    expect(faults[3]!.isWrite).toBe(true)
    expect(paging.served).toBe(4)
  })

  test('come from JavaScript for code that KVM may emulate: real mode reads, writes and runs what is not there', (context) => {
    needsPaging(context)
    const faults: number[] = []
    using ram = Mapping.anonymous(64 * pageSize)
    const code = assemble('mov $0x1000, %ax; mov %ax, %ds; mov (0), %bx; movw $7, (0x1008); mov (0x1008), %cx; hlt', { mode: 'real', at: 0x2000 })
    // The handler also runs another vCPU, whose exits must not be taken for those of the first.
    using there = Mapping.anonymous(pageSize)
    there.write(0, assemble('1: out %al, $0x10; jmp 1b', { mode: 'real', at: 0 }))
    const otherVm = kvm.createVm()
    otherVm.memslots.create({ gpa: 0, mapping: there })
    const other = otherVm.createVcpu().enter('real', { ip: 0 })
    using _paging = ram.onMissing(({ offset }) => {
      faults.push(offset / pageSize)
      expect(other.run().reason).toBe('io-out')
      const page = patternOf(offset / pageSize)
      if (offset === 0x2000) page.set(code)
      return page
    })
    vm.memslots.create({ gpa: 0, mapping: ram })
    const vcpu = vm.createVcpu().enter('real', { ip: 0x2000 })
    expect(vcpu.run({ timeoutMs: patience })).toEqual({ reason: 'hlt' })
    const { rbx, rcx } = vcpu.registers.get()
    expect([rbx & 0xffffn, rcx & 0xffffn]).toEqual([wordOf(16) & 0xffffn, 7n])
    expect(ram.read(0x1_1000, 16)).toEqual(new Uint8Array([...patternOf(17).subarray(0, 8), 7, 0, ...patternOf(17).subarray(10, 16)]))
    expect(new Set(faults)).toEqual(new Set([2, 16, 17]))
    otherVm.close()
  })

  test('come from JavaScript by the thousand within one run(), whose time limit still holds', (context) => {
    needsPaging(context)
    const pages = inLab ? 30 : 8000
    using ram = Mapping.anonymous(pages * pageSize)
    using paging = ram.onMissing(() => null)
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    expect(guest.touch(gpa, pages, 'write', 1).reason).toBe('done')
    expect(paging.served).toBe(pages)
    // Bochs was seen not to end a guest at CPL 3 that never exits.
    if (inLab) return
    ram.advise('dontneed')
    const writer = new Writer(vm, gpa, pages)
    expect(writer.run(1_000_000_000, 50)).toBe('timeout')
  })

  test('may bring their neighbours, and be of zeros', (context) => {
    needsPaging(context)
    let asked = 0
    using ram = Mapping.anonymous(8 * pageSize)
    using _paging = ram.onMissing(({ offset }) => {
      asked++
      return offset === 0 ? Buffer.concat([patternOf(1), patternOf(2), patternOf(3)]) : undefined
    })
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    expect([0, 1, 2, 3].map((page) => guest.read(gpa + page * pageSize))).toEqual(
      [wordOf(1), wordOf(2), wordOf(3), 0n].map((value) => ({ reason: 'done', value }))
    )
    expect(asked).toBe(2)
  })

  test('are not asked for where something was written before, and are asked for again once given back', (context) => {
    needsPaging(context)
    let asked = 0
    using ram = Mapping.anonymous(4 * pageSize)
    ram.write(pageSize, new Uint8Array([9]))
    using _paging = ram.onMissing((fault) => {
      asked++
      return pattern(fault)
    })
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    expect(guest.read(gpa + pageSize)).toEqual({ reason: 'done', value: 9n })
    expect(ram.read(pageSize, 1)[0]).toBe(9)
    expect(asked).toBe(0)
    ram.advise('dontneed', pageSize, pageSize)
    expect(guest.read(gpa + pageSize)).toEqual({ reason: 'done', value: wordOf(1) })
    expect(asked).toBe(1)
    expect(checkedError(() => ram.advise('free'), 'memory').errno).toBe('EINVAL')
    expect(checkedError(() => ram.remap(), 'memory').errno).toBe('EBUSY')
  })
})

// Case D02.
describe('minor faults', () => {
  test('of a memfd show the guest what it holds, or what the handler puts there at the last moment', (context) => {
    needsPaging(context)
    const pages = 16
    using ram = Mapping.memfd(pages * pageSize)
    for (let page = 0; page < pages; page++) ram.write(page * pageSize, patternOf(page))
    // The pages were written through this mapping, so it maps them: this gives the mapping back, not the pages.
    ram.advise('dontneed')
    const asked: number[] = []
    using paging = minorFaults(context, ram, ({ offset }) => {
      asked.push(offset / pageSize)
      return offset === 5 * pageSize ? patternOf(50) : undefined
    })
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    for (const page of [0, 5, 15]) expect(guest.read(gpa + page * pageSize)).toEqual({ reason: 'done', value: wordOf(page === 5 ? 50 : page) })
    expect(asked).toEqual([0, 5, 15])
    expect(paging.served).toBe(3)
    // The library looks at the memfd, not at the mapping, so there is no fault and nothing to wait for.
    expect(ram.read(7 * pageSize, pageSize)).toEqual(patternOf(7))
    ram.write(8 * pageSize, patternOf(80))
    expect(asked).toEqual([0, 5, 15])
    expect(guest.read(gpa + 8 * pageSize)).toEqual({ reason: 'done', value: wordOf(80) })
  })

  function minorFaults(context: TestContext, ram: Mapping, handler: FaultHandler) {
    try {
      return ram.onMinorFault(handler)
    } catch (error) {
      return skip(context, (error as Error).message)
    }
  }

  test('do not exist for anonymous memory', (context) => {
    needsPaging(context)
    using ram = Mapping.anonymous(pageSize)
    checkedError(() => ram.onMinorFault(() => null), 'unavailable')
    checkedError(() => ram.onMinorFault({ content: new Uint8Array(1) } as never), 'argument')
  })
})

describe('a handler that answers later', () => {
  const slow: FaultHandler = async (fault) => {
    await sleep(5)
    return pattern(fault)
  }

  test('is waited for by populate(), and read() says to do so', async (context) => {
    needsPaging(context)
    using ram = Mapping.anonymous(4 * pageSize)
    using _paging = ram.onMissing(slow)
    const error = checkedError(() => ram.read(pageSize, 1), 'not-present')
    expect(error['offset']).toBe(pageSize)
    expect(error.message).toContain('populate()')
    for (const access of [() => ram.write(0, new Uint8Array(1)), () => ram.fill(1), () => ram.advise('populate-read')])
      checkedError(access, 'not-present')
    await _paging.populate(0, 2 * pageSize)
    expect(ram.read(0, 8)).toEqual(patternOf(0).subarray(0, 8))
    checkedError(() => ram.read(0, 4 * pageSize), 'not-present')
    await _paging.populate()
    expect(ram.read(3 * pageSize, pageSize)).toEqual(patternOf(3))
  })

  test('would keep a run() on its own thread waiting for ever: it is an error at once, and after populate() the guest goes on', async (context) => {
    needsPaging(context)
    using ram = Mapping.anonymous(4 * pageSize)
    using paging = ram.onMissing(slow)
    vm.memslots.create({ gpa, mapping: ram })
    const guest = Guest.create(vm)
    checkedError(() => guest.read(gpa), 'not-present')
    await paging.populate(0, pageSize)
    expect(guest.read(gpa)).toEqual({ reason: 'done', value: wordOf(0) })
  })
})

describe('a service that fails', () => {
  /** The messages of errors that are thrown in a later turn than the one in which `work` ends. */
  async function thrownLater(work: () => unknown): Promise<string[]> {
    using uncaught = new Uncaught()
    await work()
    await sleep(1)
    return uncaught.messages
  }

  test.for<[string, FaultHandler, string]>([
    [
      'throws',
      () => {
        throw new Error('no such page')
      },
      'no such page'
    ],
    ['gives half a page', () => new Uint8Array(2048), 'whole pages'],
    ['gives more than there is', () => new Uint8Array(64 * KiB), "past the mapping's end"],
    ['gives what is none', () => 'page' as never, 'Uint8Array']
  ] as [string, FaultHandler, string][])(
    'because its handler %s gives an error of the page, and the error is told',
    async ([, handler, message], context) => {
      needsPaging(context)
      using ram = Mapping.anonymous(8 * pageSize)
      using _paging = ram.onMissing(handler)
      const errors = await thrownLater(() => {
        expect(checkedError(() => ram.read(4 * pageSize, 1), 'memory').errno).toBe('EFAULT')
      })
      expect(errors).toEqual([expect.stringContaining(message)])
    }
  )

  test('because its handler reads the page that it is asked for is an error too', async (context) => {
    needsPaging(context)
    using ram = Mapping.anonymous(pageSize)
    using _paging = ram.onMissing(() => ram.read(0, pageSize))
    const errors = await thrownLater(() => checkedError(() => ram.read(0, 1), 'memory'))
    expect(errors).toEqual([expect.stringContaining('this handler was called to bring it')])
  })
})

test('populate() asks only for what is missing, whole runs at a time, and gives the event loop its turns', async (context) => {
  needsPaging(context)
  using ram = Mapping.anonymous(64 * MiB, { hugePages: false })
  for (let page = 0; page < 100; page++) ram.write(page * 160 * pageSize, new Uint8Array([1]))
  let asked = 0
  let turns = 0
  const timer = setInterval(() => turns++, 0)
  using paging = ram.onMissing(() => {
    asked++
    return new Uint8Array(16 * pageSize)
  })
  await paging.populate(0, 60 * MiB)
  clearInterval(timer)
  // Each answer brings sixteen pages; pages that were there stay.
  expect(asked).toBeGreaterThan(500)
  expect(asked).toBeLessThan((60 * MiB) / pageSize / 8)
  expect(turns).toBeGreaterThan(0)
  expect(ram.read(60 * MiB - 1, 1)).toEqual(new Uint8Array(1))
  expect(ram.read(160 * pageSize, 1)).toEqual(new Uint8Array([1]))
  const before = asked
  await paging.populate(0, 60 * MiB)
  expect(asked).toBe(before)
})

test('a handler is called in the async context that it was given in, whoever waits', (context) => {
  needsPaging(context)
  const storage = new AsyncLocalStorage<string>()
  using ram = Mapping.anonymous(4 * pageSize)
  const seen: unknown[] = []
  using _paging = storage.run('given', () =>
    ram.onMissing(() => {
      seen.push(storage.getStore())
      return null
    })
  )
  vm.memslots.create({ gpa, mapping: ram })
  const guest = Guest.create(vm)
  storage.run('run', () => guest.read(gpa))
  storage.run('read', () => ram.read(pageSize, 1))
  expect(seen).toEqual(['given', 'given'])
})

test('sources that are none are refused', (context) => {
  needsPaging(context)
  using ram = Mapping.anonymous(MiB)
  checkedError(() => ram.onMissing({ file: join(folder, 'nothing') }), 'memory')
  expect(checkedError(() => ram.onMissing({ file: 7 } as never), 'argument').argument).toBe('file')
  expect(checkedError(() => ram.onMissing({ path: 'x' } as never), 'argument').argument).toBe('path')
  expect(checkedError(() => ram.onMissing({ content: 'x' } as never), 'argument').argument).toBe('content')
  checkedError(() => ram.onMissing(undefined as never), 'argument')
  ram.close()
  checkedError(() => ram.onMissing(pattern), 'closed')
  expect(kvm.closed).toBe(false)
})
