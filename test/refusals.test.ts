// Why VMs cannot be read from outside, or their second stage not mirrored: each reason has its own words, and says what helps.
import { expect, test } from 'vitest'
import type { TableFailure } from '../lib/abi/native.js'
import { backingOf, type HostMapping } from '../lib/translation/backing.js'
import { explainRefusal, missingFieldNames, missingOnHost, type ReadingHost } from '../lib/translation/refusal.js'

const able: ReadingHost = {
  kvmLoaded: true,
  btf: true,
  moduleBtf: true,
  lockdown: 'none',
  capabilities: { sysAdmin: true, bpf: true, perfmon: true }
}
const failure: TableFailure = { step: 'program', error: -22, missingFields: 0, log: '' }
const nobody = { sysAdmin: false, bpf: false, perfmon: false }

test.each([
  [{ kvmLoaded: false }, 'kvm is not loaded', 'modprobe'],
  [{ btf: false }, 'no BTF (/sys/kernel/btf/vmlinux)', 'CONFIG_DEBUG_INFO_BTF'],
  [{ moduleBtf: false }, 'module kvm has no BTF', 'CONFIG_DEBUG_INFO_BTF_MODULES'],
  [{ lockdown: 'confidentiality' }, 'lockdown is at the level confidentiality', 'lockdown=integrity'],
  [{ capabilities: nobody }, 'no CAP_BPF and no CAP_PERFMON', 'setcap'],
  [{ capabilities: { ...nobody, bpf: true } }, 'no CAP_PERFMON', 'run as root']
] as [Partial<ReadingHost>, string, string][])('%j', (lacks, why, remedy) => {
  const host = { ...able, ...lacks }
  expect(missingOnHost(host)).toEqual({ why: expect.stringContaining(why), remedy: expect.stringContaining(remedy) })
  expect(explainRefusal(failure, host)).toContain(why)
})

test('what is no hindrance is none', () => {
  for (const lockdown of ['none', 'integrity', null]) expect(missingOnHost({ ...able, lockdown })).toBeNull()
  expect(missingOnHost({ ...able, capabilities: { sysAdmin: false, bpf: true, perfmon: true } })).toBeNull()
  expect(missingOnHost({ ...able, capabilities: { sysAdmin: true, bpf: false, perfmon: false } })).toBeNull()
})

test('a kernel whose KVM lacks a field: the field is named', () => {
  const bits = (1 << 2) | (1 << 18)
  expect(missingFieldNames(bits)).toEqual(['kvm.mmu_invalidate_seq', 'kvm_mmu_page.shadowed_translation'])
  expect(explainRefusal({ ...failure, step: 'fields', error: -95, missingFields: bits }, able)).toContain(
    'has no kvm.mmu_invalidate_seq, no kvm_mmu_page.shadowed_translation'
  )
})

test('any other refusal: which step, which error, and the last that the verifier said', () => {
  expect(explainRefusal({ ...failure, log: 'line 1\nR1 invalid mem access\n' }, able)).toContain("at 'program' with EINVAL (R1 invalid mem access)")
})

test('what stands behind a slot: one kind, several, or nothing at all', () => {
  const mapping = (start: number, backing: HostMapping['backing'], path = ''): HostMapping => ({ start, end: start + 0x1000, backing, path })
  const mappings = [mapping(0x1000, 'anonymous'), mapping(0x2000, 'anonymous'), mapping(0x3000, 'file', '/image'), mapping(0x8000, 'memfd')]
  expect(backingOf(mappings, 0x1000, 0x1000)).toEqual({ backing: 'anonymous', path: '' })
  expect(backingOf(mappings, 0x1000, 0x2000)).toEqual({ backing: 'anonymous', path: '' })
  expect(backingOf(mappings, 0x2000, 0x2000)).toEqual({ backing: 'mixed', path: '/image' })
  expect(backingOf(mappings, 0x5000, 0x1000)).toEqual({ backing: 'unmapped', path: '' })
  expect(backingOf([], 0x5000, 0x1000)).toEqual({ backing: 'unknown', path: '' })
})
