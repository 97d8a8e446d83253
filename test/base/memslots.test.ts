import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { capabilities, KiB, KvmError, Mapping, type Memslot, MiB } from 'node-kvm'
import { describeHost, type Host } from 'node-kvm/observe'
import { describe, expect, type TestContext, test } from 'vitest'
import { guestPhysicalLimit } from '../../lib/memory/guest-physical.js'
import { compile } from '../support/compile.js'
import { checkedError } from '../support/errors.js'
import { patience } from '../support/patience.js'
import { inLab, skip, withoutGuestMemfd } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

const page = () => Mapping.anonymous(4 * KiB)

// Case A01.
test('every slot up to the limit can be created, and one more is refused with the limit named', (context) => {
  if (inLab?.endsWith('-shadow')) skip(context, 'shadow paging keeps 24 KiB for each slot, which is more in all than a machine of the lab has')
  expect(vm.memslots.limit).toBeGreaterThan(0)
  const mapping = page()
  for (let slot = 0; slot < vm.memslots.limit; slot++) vm.memslots.create({ gpa: slot * 4 * KiB, mapping })
  expect(vm.memslots.length).toBe(vm.memslots.limit)
  const error = checkedError(() => vm.memslots.create({ gpa: vm.memslots.limit * 4 * KiB, mapping }), 'limit')
  expect(error['limit']).toBe(vm.memslots.limit)
  const last = vm.memslots.lookup((vm.memslots.limit - 1) * 4 * KiB) as Memslot
  last.delete()
  expect(vm.memslots.create({ gpa: 0x1_0000_0000, mapping }).id).toBe(last.id)
})

/** Shadow paging always does. With the TDP MMU, kernels before 6.9 also make room in the pool (6.1 was seen to do so, and 6.12 not to). */
function takesRootFromPool({ tdpMmu, kernel }: Host): boolean {
  const [major, minor] = kernel.split('.').map(Number) as [number, number]
  return !tdpMmu || major < 6 || (major === 6 && minor < 9)
}

// Case A02.
test('a vCPU without any memslot does not run: it is an internal error, or ENOSPC where KVM takes the root from the pool of shadow pages', () => {
  using vcpu = vm.createVcpu()
  const special = vcpu.registers.getSpecial()
  special.cs = Object.assign(special.cs, { base: 0n, selector: 0 })
  vcpu.registers.setSpecial(special)
  vcpu.registers.set({ rip: 0n, rflags: 2n })
  if (takesRootFromPool(describeHost())) {
    // The memslots determine the pool's size, so KVM_RUN itself fails.
    const error = checkedError(() => vcpu.run({ timeoutMs: patience }), 'ioctl')
    expect(error.errno).toBe('ENOSPC')
    expect(error.message).toContain('no memslots')
  } else expect(vcpu.run({ timeoutMs: patience }).reason).toBe('internal-error')
})

// Case A03.
test('every flag bit that the kernel does not support is EINVAL, and so is one of the second form on the first', () => {
  const mapping = page()
  // 1 is LOG_DIRTY_PAGES, 2 is READONLY, 4 is GUEST_MEMFD, which is a flag of the second form.
  const unsupported = Array.from({ length: 32 }, (_, bit) => 2 ** bit).filter((flag) => flag > 2)
  expect(unsupported.length).toBe(30)
  for (const flags of unsupported) expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping, flags }), 'ioctl').errno).toBe('EINVAL')
  expect(vm.memslots.length).toBe(0)
  vm.memslots.create({ gpa: 0, mapping, flags: 1 }).change({ flags: 0 })
})

test('guest-physical addresses end where the limit says, and beyond it that is what the error says', () => {
  const limit = guestPhysicalLimit(kvm.supportedCpuid())
  vm.memslots.create({ gpa: limit - 4 * KiB, mapping: page() }).delete()
  const beyond = () => vm.memslots.create({ gpa: limit - 4 * KiB, mapping: Mapping.anonymous(8 * KiB) })
  expect(checkedError(beyond, 'ioctl')).toMatchObject({
    errno: 'EINVAL',
    message: expect.stringContaining(`past the end of guest-physical addresses on this host, 0x${limit.toString(16)}`)
  })
})

// Case A03.
test('an unknown option is refused by name', () => {
  const mapping = page()
  for (const option of ['guestmemfd', 'readOnly'])
    expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping, [option]: true }), 'argument').argument).toBe(option)
  expect(vm.memslots.length).toBe(0)
})

// Case A10.
test('deleting a slot that does not exist is EINVAL at the kernel', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'node-kvm-memslots-'))
  try {
    const program = compile(context, 'delete-unknown', folder)
    expect(Number(execFileSync(program))).toBe(constants.errno.EINVAL)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

// Case A10.
test('a second delete does nothing, and other calls on a deleted slot say that it is deleted', () => {
  const slot = vm.memslots.create({ gpa: 0, mapping: page() })
  slot.delete()
  slot.delete()
  checkedError(() => slot.move(0x1000), 'closed')
  checkedError(() => slot.rebind(page()), 'closed')
  checkedError(() => slot.getDirtyLog(), 'closed')
})

// Case A11.
test('another HVA, size or READONLY on a live slot is EINVAL, and the slot stays as it was', () => {
  const mapping = Mapping.anonymous(16 * KiB)
  const slot = vm.memslots.create({ gpa: 0, mapping, size: 8 * KiB })
  const before = slot.toJSON()
  for (const change of [{ mapping: Mapping.anonymous(16 * KiB) }, { offset: 4 * KiB }, { size: 4 * KiB }, { size: 16 * KiB }, { flags: 2 }])
    expect(checkedError(() => slot.change(change), 'ioctl').errno).toBe('EINVAL')
  expect(slot.toJSON()).toEqual(before)
  slot.change({ gpa: 0x1_0000, flags: 1 })
  expect(slot).toMatchObject({ gpa: 0x1_0000, logDirty: true })
})

// Case A11.
test('setFlags() says why READONLY cannot change', () => {
  const slot = vm.memslots.create({ gpa: 0, mapping: page() })
  expect(checkedError(() => slot.setFlags({ readonly: true } as never), 'argument').argument).toBe('readonly')
  expect(slot.readonly).toBe(false)
  for (const nothing of [null, undefined, 1] as never[]) checkedError(() => slot.setFlags(nothing), 'argument')
})

// Case A12.
test('another GPA is a move', () => {
  const slot = vm.memslots.create({ gpa: 0xa000, mapping: page() })
  const { hva } = slot
  slot.move(0xe000)
  expect(slot).toMatchObject({ gpa: 0xe000, hva })
  expect(vm.memslots.lookup(0xa000)).toBeUndefined()
  expect(vm.memslots.lookup(0xefff)).toBe(slot)
})

// Case A13.
test('the same placement again is accepted and changes nothing', () => {
  const slot = vm.memslots.create({ gpa: 0xa000, mapping: page() })
  slot.move(0xa000)
  slot.setFlags({ logDirty: false })
  expect(slot.gpa).toBe(0xa000)
})

// Case A14.
test('an overlap on create or move names both ranges', () => {
  const first = vm.memslots.create({ gpa: 0x10000, mapping: Mapping.anonymous(64 * KiB) })
  const error = checkedError(() => vm.memslots.create({ gpa: 0x1f000, mapping: Mapping.anonymous(8 * KiB) }), 'overlap')
  expect(error.message).toContain('0x1f000-0x21000')
  expect(error.message).toContain('0x10000-0x20000')
  const second = vm.memslots.create({ gpa: 0x20000, mapping: page() })
  checkedError(() => second.move(0x1f000), 'overlap')
  checkedError(() => second.move(0x10000), 'overlap')
  expect(second.gpa).toBe(0x20000)
  first.move(0x11000 - 0x1000)
  checkedError(() => first.resize(128 * KiB), 'argument')
})

// Case A14.
test('a move by less than its own size does not overlap itself', () => {
  const slot = vm.memslots.create({ gpa: 0x10000, mapping: Mapping.anonymous(64 * KiB) })
  slot.move(0x14000)
  slot.move(0xc000)
  expect(slot.gpa).toBe(0xc000)
})

describe('a guest_memfd', () => {
  const need = (context: TestContext) => vm.capabilities.check(capabilities.GUEST_MEMFD) > 0 || skip(context, withoutGuestMemfd)

  // Case A15.
  test('has a slot that can only be deleted', (context) => {
    need(context)
    using guestMemfd = vm.createGuestMemfd({ size: 64 * KiB })
    const slot = vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(64 * KiB), guestMemfd })
    for (const change of [{ gpa: 0x10_0000 }, { flags: 5 }, { size: 4 * KiB }])
      expect(checkedError(() => slot.change(change), 'ioctl').errno).toBe('EINVAL')
    expect(slot).toMatchObject({ gpa: 0, size: 64 * KiB, guestMemfd })
    slot.delete()
    expect(vm.memslots.length).toBe(0)
    expect(vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(64 * KiB), guestMemfd }).id).toBe(slot.id)
  })

  // Case A03.
  test('is EINVAL with a dirty log', (context) => {
    need(context)
    using guestMemfd = vm.createGuestMemfd({ size: 64 * KiB })
    expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(64 * KiB), guestMemfd, logDirty: true }), 'ioctl').errno).toBe(
      'EINVAL'
    )
  })

  // Case A08.
  test("is EINVAL where it is another VM's, and refused where its pages are bound already", (context) => {
    need(context)
    using other = kvm.createVm()
    using foreign = other.createGuestMemfd({ size: 64 * KiB })
    using own = vm.createGuestMemfd({ size: 64 * KiB })
    const mapping = Mapping.anonymous(64 * KiB)
    expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping, guestMemfd: foreign }), 'ioctl').errno).toBe('EINVAL')
    vm.memslots.create({ gpa: 0, mapping, guestMemfd: own })
    // The kernel says EEXIST where the guest addresses overlap too; for the pages alone 6.18 says EINVAL.
    expect(['EEXIST', 'EINVAL']).toContain(checkedError(() => vm.memslots.create({ gpa: 0x10_0000, mapping, guestMemfd: own }), 'ioctl').errno)
    expect(checkedError(() => vm.memslots.create({ gpa: 0x20_0000, mapping, guestMemfd: own, guestMemfdOffset: 4 * KiB }), 'argument').argument).toBe(
      'guestMemfdOffset'
    )
    expect(checkedError(() => vm.memslots.create({ gpa: 0x20_0000, mapping, guestMemfd: mapping as never }), 'argument').argument).toBe('guestMemfd')
  })

  test('is refused by name where it is closed, of size 0 or unknown to the host', (context) => {
    expect(checkedError(() => vm.createGuestMemfd({ size: 0 }), 'argument').argument).toBe('size')
    need(context)
    const guestMemfd = vm.createGuestMemfd({ size: 4 * KiB })
    guestMemfd.close()
    checkedError(() => vm.memslots.create({ gpa: 0, mapping: page(), guestMemfd }), 'closed')
  })
})

describe('the table', () => {
  test('rebind() and resize() keep id and GPA, and leave the slot as it was where they are refused', () => {
    const mapping = Mapping.anonymous(64 * KiB)
    const slot = vm.memslots.create({ gpa: 0x10000, mapping, size: 32 * KiB })
    vm.memslots.create({ gpa: 0x1c000, mapping: page() })
    checkedError(() => slot.resize(64 * KiB), 'overlap')
    expect(slot.size).toBe(32 * KiB)
    slot.resize(48 * KiB)
    const other = Mapping.memfd(64 * KiB)
    slot.rebind(other, 16 * KiB)
    expect(slot).toMatchObject({ id: 0, gpa: 0x10000, size: 48 * KiB, hva: other.address + 16 * KiB })
    checkedError(() => slot.rebind(page()), 'argument')
    expect(slot.mapping).toBe(other)
    mapping.close()
  })

  test('looks up by GPA and iterates in order, however slots were made', () => {
    const mapping = page()
    const gpas = Array.from({ length: 500 }, (_, index) => ((index * 7919) % 500) * 8 * KiB)
    for (const gpa of gpas) vm.memslots.create({ gpa, mapping })
    expect([...vm.memslots].map((slot) => slot.gpa)).toEqual([...gpas].sort((a, b) => a - b))
    for (const gpa of gpas) {
      expect(vm.memslots.lookup(gpa + 4095)?.gpa).toBe(gpa)
      expect(vm.memslots.lookup(gpa + 4096)).toBeUndefined()
    }
  })

  test('ids of deleted slots are used again, and a refused create leaks none', () => {
    const mapping = page()
    for (let round = 0; round < 3 * vm.memslots.limit; round += 1000) {
      const slot = vm.memslots.create({ gpa: 0, mapping })
      expect(slot.id).toBe(0)
      expect(() => vm.memslots.create({ gpa: 0, mapping })).toThrow(KvmError)
      slot.delete()
    }
  })

  test('guest memory is read and written across slots, all or nothing', () => {
    vm.memslots.create({ gpa: 0, mapping: page() })
    vm.memslots.create({ gpa: 4 * KiB, mapping: Mapping.memfd(2 * MiB), offset: 8 * KiB, size: 4 * KiB })
    vm.memory.write(4092, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]))
    expect([...vm.memory.read(4090, 12)]).toEqual([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0])
    expect(checkedError(() => vm.memory.write(8188, new Uint8Array(8).fill(9)), 'no-memslot')['gpa']).toBe(8192)
    expect([...vm.memory.read(8188, 4)]).toEqual([0, 0, 0, 0])
  })

  test('prints a line for each slot', () => {
    const slot = vm.memslots.create({ gpa: 0xa000, mapping: page(), logDirty: true })
    expect(String(vm.memslots)).toBe(`slot 0: gpa 0xa000-0xb000 -> hva 0x${slot.hva.toString(16)}-0x${(slot.hva + 4096).toString(16)} dirty-logged`)
  })
})

describe('bad input', () => {
  const addresses = {
    unaligned: 1,
    negative: -4096,
    fractional: 0.5,
    nan: Number.NaN,
    infinite: Infinity,
    huge: 2 ** 52,
    text: '0x1000',
    big: 4096n,
    nothing: null
  }
  test.each(Object.entries(addresses))('a GPA that is %s is refused', (_, gpa) => {
    expect(checkedError(() => vm.memslots.create({ gpa: gpa as number, mapping: page() }), 'argument').argument).toBe('gpa')
    const slot = vm.memslots.create({ gpa: 0, mapping: page() })
    expect(checkedError(() => slot.move(gpa as number), 'argument').argument).toBe('gpa')
    expect(slot.gpa).toBe(0)
  })
  test.each([0, -1, 1.5, 8 * KiB, Number.NaN, '4096'])('a size of %s is refused', (size) => {
    expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping: page(), size: size as number }), 'argument').argument).toBe('size')
  })
  test('what is no mapping, or a closed one, is refused', () => {
    expect(checkedError(() => vm.memslots.create({ gpa: 0, mapping: {} as Mapping }), 'argument').argument).toBe('mapping')
    const closed = page()
    closed.close()
    checkedError(() => vm.memslots.create({ gpa: 0, mapping: closed }), 'closed')
  })
  test("a GPA beyond what the processor has is the kernel's refusal, not a crash", () => {
    const before = vm.memslots.length
    try {
      vm.memslots.create({ gpa: 2 ** 52 - 4096, mapping: page() })
    } catch (error) {
      expect(error).toBeInstanceOf(KvmError)
      expect(vm.memslots.length).toBe(before)
    }
  })
})
