/** Which rule a memslot broke: the kernel answers EINVAL to all of them. */
import { CpuidEntry, capabilities, KiB, Mapping, type Memslot } from 'node-kvm'
import { describe, expect, test } from 'vitest'
import { guestPhysicalLimit } from '../../lib/memory/guest-physical.js'
import { checkedError } from '../support/errors.js'
import { skip } from '../support/skip.js'
import { kvm, vm } from '../support/vm.js'

const page = () => Mapping.anonymous(4 * KiB)
const refusal = (call: () => unknown) => {
  const { errno, message } = checkedError(call, 'ioctl')
  return `${errno}: ${message.split('; ').slice(1).join('; ')}`
}

test('an error about a live slot says which part of it cannot change, and what changes it', () => {
  const mapping = Mapping.anonymous(16 * KiB)
  const slot = vm.memslots.create({ gpa: 0, mapping, size: 8 * KiB })
  expect(refusal(() => slot.change({ size: 4 * KiB }))).toMatch(/^EINVAL: the size of a live slot, 0x2000, cannot change .*resize\(\)/)
  expect(refusal(() => slot.change({ mapping: Mapping.anonymous(16 * KiB) }))).toMatch(/^EINVAL: other memory .*rebind\(\)/)
  expect(refusal(() => slot.change({ offset: 4 * KiB }))).toMatch(/^EINVAL: other memory .*rebind\(\)/)
  expect(refusal(() => slot.change({ flags: 2 }))).toMatch(/^EINVAL: readonly \(KVM_MEM_READONLY\) of a live slot cannot change/)
})

test('a flag that the kernel lacks is named, also in a transaction, and nothing else is supposed', () => {
  const slot = vm.memslots.create({ gpa: 0, mapping: page() })
  const flagged = 'EINVAL: KVM of this kernel knows no flag 0x100'
  expect(refusal(() => vm.memslots.create({ gpa: 0x1000, mapping: page(), flags: 0x100 }))).toBe(flagged)
  expect(refusal(() => slot.change({ flags: 0x100 }))).toBe(flagged)
  const attempt = () =>
    vm.memslots.transaction((transaction) => {
      transaction.move(slot, 0x8000)
      transaction.create({ gpa: 0x1000, mapping: page(), flags: 0x100 })
    })
  expect(refusal(attempt)).toBe(flagged)
  expect(slot.gpa).toBe(0)
})

test('the largest slot is told', () => {
  const mapping = Mapping.memfd(2 ** 43)
  const create = (size: number): Memslot => vm.memslots.create({ gpa: 0, mapping, size })
  if (guestPhysicalLimit() < 2 ** 43) expect(refusal(() => create(2 ** 43))).toContain('past the end of guest-physical addresses')
  else expect(refusal(() => create(2 ** 43))).toBe('EINVAL: one slot has at most 0x7fffffff000 bytes, 8 TiB less one page: use two slots')
})

describe('a guest_memfd', () => {
  test('is refused with what its slot cannot be, and where its pages are already', (context) => {
    if (vm.capabilities.check(capabilities.GUEST_MEMFD) === 0) skip(context, 'this host has no guest_memfd for ordinary VMs')
    const mapping = Mapping.anonymous(64 * KiB)
    using guestMemfd = vm.createGuestMemfd({ size: 64 * KiB })
    expect(refusal(() => vm.memslots.create({ gpa: 0, mapping, guestMemfd, logDirty: true }))).toContain('cannot be dirty-logged')
    expect(refusal(() => vm.memslots.create({ gpa: 0, mapping, guestMemfd, readonly: true }))).toContain('cannot be readonly')
    using other = kvm.createVm()
    using foreign = other.createGuestMemfd({ size: 64 * KiB })
    expect(refusal(() => vm.memslots.create({ gpa: 0, mapping, guestMemfd: foreign }))).toContain('belongs to another VM')
    const slot = vm.memslots.create({ gpa: 0, mapping, guestMemfd })
    expect(refusal(() => slot.change({ gpa: 0x10_0000 }))).toContain('cannot change: delete() it')
    expect(refusal(() => vm.memslots.create({ gpa: 0x10_0000, mapping, guestMemfd }))).toMatch(
      /^E(INVAL|EXIST): the slot at gpa 0x0-0x10000 has these pages/
    )
  })
  test('is asked for where its flag is given alone', () => {
    expect(refusal(() => vm.memslots.create({ gpa: 0, mapping: page(), flags: 4 }))).toBe(
      'EINVAL: KVM_MEM_GUEST_MEMFD (flag 0x4) needs the option guestMemfd'
    )
  })
})

describe('the end of guest-physical addresses', () => {
  const host = (files: Record<string, string>) => (path: string) => files[path] ?? null
  const ept = { '/sys/module/kvm_intel/parameters/ept': 'Y', '/proc/cpuinfo': 'address sizes\t: 41 bits physical, 48 bits virtual\n' }
  const sizes = [new CpuidEntry({ function: 0x8000_0008, eax: 0x30_302e })]

  test('is that of the processor with EPT, by its CPUID before /proc/cpuinfo, from which memory encryption takes bits', () => {
    expect(guestPhysicalLimit(sizes, host(ept))).toBe(2 ** 46)
    expect(guestPhysicalLimit(undefined, host(ept))).toBe(2 ** 41)
    expect(guestPhysicalLimit([], host({ '/sys/module/kvm_amd/parameters/npt': '1' }))).toBe(2 ** 52)
  })
  test('is 2^52 where KVM shadows page tables', () => {
    expect(guestPhysicalLimit(sizes, host({ ...ept, '/sys/module/kvm_intel/parameters/ept': 'N' }))).toBe(2 ** 52)
  })
})
