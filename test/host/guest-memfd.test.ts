/** Guest memory behind a file of KVM. */
import { readFileSync } from 'node:fs'
import { capabilities, KiB, Mapping, MiB } from 'node-kvm'
import { Guest } from 'node-kvm/testing'
import { beforeEach, describe, expect, type TestContext, test } from 'vitest'
import { checkedError } from '../support/errors.js'
import { skip } from '../support/skip.js'
import { vm } from '../support/vm.js'

const size = 64 * MiB
/** The number of bytes that the kernel does not reclaim; the pages of guest_memfds are among them. */
const unevictable = () => Number(/^Unevictable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * KiB

beforeEach((context) => {
  if (vm.capabilities.check(capabilities.GUEST_MEMFD) === 0) skip(context, 'KVM makes no guest_memfd for ordinary VMs here (KVM_CAP_GUEST_MEMFD)')
})
const needsFlags = (context: TestContext) => {
  if ((vm.capabilities.check(capabilities.GUEST_MEMFD_FLAGS) & 3) !== 3)
    skip(context, 'guest_memfds cannot be mapped here (KVM_CAP_GUEST_MEMFD_FLAGS)')
}

test('allocate() brings all pages in before anybody touches them, and punchHole() gives them back', () => {
  using memfd = vm.createGuestMemfd({ size })
  const before = unevictable()
  memfd.allocate()
  expect(unevictable() - before).toBeGreaterThan(size / 2)
  memfd.punchHole(0, size)
  expect(unevictable() - before).toBeLessThan(size / 2)
})

test('ranges are checked, and a closed guest_memfd says so', () => {
  const memfd = vm.createGuestMemfd({ size })
  expect(checkedError(() => memfd.allocate(1, 4096), 'argument').argument).toBe('offset')
  expect(checkedError(() => memfd.allocate(0, 100), 'argument').argument).toBe('length')
  expect(checkedError(() => memfd.punchHole(4096, size), 'argument').message).toContain("past the guest_memfd's end at 0x4000000")
  memfd.close()
  for (const call of [() => memfd.allocate(), () => memfd.punchHole(), () => memfd.mmap()]) checkedError(call, 'closed')
})

test('a guest_memfd that is closed before the transaction that names it ends does not become a slot without private pages', () => {
  const memfd = vm.createGuestMemfd({ size: 4096 })
  const attempt = () =>
    vm.memslots.transaction((transaction) => {
      transaction.create({ gpa: 0, mapping: Mapping.anonymous(4096), guestMemfd: memfd })
      memfd.close()
    })
  checkedError(attempt, 'closed')
  expect(vm.memslots.length).toBe(0)
})

describe('flags', () => {
  test('that KVM lacks are named beside those that it knows', () => {
    const error = checkedError(() => vm.createGuestMemfd({ size: 4096, flags: 0x40 }), 'unavailable')
    expect(error).toMatchObject({ errno: 'EINVAL', ioctl: 'KVM_CREATE_GUEST_MEMFD' })
    const known = vm.capabilities.check(capabilities.GUEST_MEMFD_FLAGS)
    expect(error.message).toContain(
      `KVM does not know the flag 0x40 here; it knows ${['no flag', 'mmap', 'initShared', 'mmap and initShared'][known & 3]}`
    )
  })
  test('are those of the kernel by their names', (context) => {
    needsFlags(context)
    using memfd = vm.createGuestMemfd({ size: 4096, mmap: true, initShared: true })
    expect(memfd).toMatchObject({ flags: 3, mappable: true })
    checkedError(() => vm.createGuestMemfd({ size: 4096, mmap: 1 } as never), 'argument')
    checkedError(() => vm.createGuestMemfd({ size: 4096, nmap: true } as never), 'argument')
  })
})

describe('mmap()', () => {
  test('says what would do for a guest_memfd that was not created for it', () => {
    using memfd = vm.createGuestMemfd({ size: 4096 })
    expect(checkedError(() => memfd.mmap(), 'state').message).toContain('create it with { mmap: true }')
  })

  test('shows what is shared, from an offset on, and a hole reads as zeros', (context) => {
    needsFlags(context)
    using memfd = vm.createGuestMemfd({ size: MiB, mmap: true, initShared: true })
    using part = memfd.mmap({ offset: 8 * KiB, size: 8 * KiB })
    using whole = memfd.mmap()
    part.write(5, new Uint8Array([7]))
    expect([...whole.read(8 * KiB + 5, 1)]).toEqual([7])
    memfd.punchHole(8 * KiB, 4 * KiB)
    expect([...part.read(5, 1)]).toEqual([0])
  })

  test('makes pages that are private to the guest an error to read, and no signal', (context) => {
    needsFlags(context)
    using memfd = vm.createGuestMemfd({ size: MiB, mmap: true })
    using mapping = memfd.mmap()
    expect(checkedError(() => mapping.read(0, 1), 'memory')).toMatchObject({
      errno: 'EFAULT',
      message: expect.stringContaining('private to a guest')
    })
  })

  test('shares its pages between the guest and this process', (context) => {
    needsFlags(context)
    const guest = Guest.create(vm)
    using memfd = vm.createGuestMemfd({ size: MiB, mmap: true, initShared: true })
    const mapping = memfd.mmap()
    vm.memslots.create({ gpa: 0x10_0000, mapping, guestMemfd: memfd })
    guest.write(0x10_0008, 42n)
    expect([...mapping.read(8, 1)]).toEqual([42])
    mapping.write(16, new Uint8Array([43]))
    expect(guest.read(0x10_0010)).toMatchObject({ reason: 'done', value: 43n })
  })
})
