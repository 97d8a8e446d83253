/** What console.log() shows of the library's objects: what each object is, and nothing native. */
import { inspect } from 'node:util'
import * as core from 'node-kvm'
import { KiB, Kvm, Mapping } from 'node-kvm'
import * as observing from 'node-kvm/observe'
import { hostVms, tables, trace } from 'node-kvm/observe'
import * as testing from 'node-kvm/testing'
import { expect, test } from 'vitest'
import { shown } from '../../lib/abi/text.js'
import { canRunVms, isOk } from '../support/needs.js'
import { kvm, vm } from '../support/vm.js'

const range = '0x[0-9a-f]+-0x[0-9a-f]+'

/** One object of each kind, and the text that it must show. */
function objects(): [object: object, text: RegExp][] {
  const mapping = Mapping.memfd(64 * KiB)
  const slot = vm.memslots.create({ gpa: 0xa000, mapping, logDirty: true })
  const all: [object, RegExp][] = [
    [mapping, new RegExp(`^Mapping { kind: memfd, hva: ${range} }$`)],
    [slot, new RegExp(`^Memslot { id: 0, gpa: 0xa000-0x1a000, hva: ${range}, logDirty }$`)],
    [vm.memslots, /^Memslots { length: \d+, limit: \d+ }$/],
    [vm.dirtyLog(), /^DirtyLog { mode: bitmap }$/],
    [testing.Guest.create(vm), /^Guest { code: 0x[0-9a-f]+, vcpu: 0 }$/]
  ]
  const vcpu = vm.createVcpu(3)
  const ofVcpu: object[] = [vcpu.registers, vcpu.cpuid, vcpu.msrs, vcpu.events, vcpu.lapic, vcpu.debug, vcpu.syncRegisters, vcpu.stats]
  all.push([vcpu, /^Vcpu { id: 3, state: stopped }$/])
  for (const facet of ofVcpu) all.push([facet, new RegExp(`^${facet.constructor.name} { of: vCPU 3 }$`)])
  for (const facet of [vm.memory, vm.interrupts, vm.capabilities, vm.stats])
    all.push([facet, new RegExp(`^${facet.constructor.name} { of: this VM }$`)])
  all.push([kvm, /^Kvm {}$/], [kvm.capabilities, /^Capabilities { of: this Kvm }$/], [vm, /^Vm { vcpus: 2, memslots: \d+ }$/])
  all.push([vm.ioeventfd({ port: 0x10, size: 1 }), /^IoEventfd { at: 0x10 }$/])
  all.push([vm.coalesce({ port: 0x20, size: 2 }, () => {}), /^CoalescedZone { port: 0x20-0x22 }$/])
  vm.memslots.transaction((transaction) => {
    transaction.setFlags(slot, { logDirty: false })
    expect(inspect(transaction)).toBe('MemslotTransaction { changes: 1 }')
    transaction.setFlags(slot, { logDirty: true })
    all.push([transaction, /^MemslotTransaction { changes: 1, over }$/])
  })
  if (isOk('userfaultfd')) {
    const lazy = Mapping.anonymous(64 * KiB)
    all.push([lazy.onMissing({ content: new Uint8Array(1) }), new RegExp(`^DemandPaging { hva: ${range}, of: source, served: 0 }$`)])
  }
  if (vm.capabilities.check(core.capabilities.GUEST_MEMFD) > 0) all.push([vm.createGuestMemfd({ size: 64 * KiB }), /^GuestMemfd { size: 0x10000 }$/])
  if (isOk('tracepoints by perf')) all.push([trace(vm, { kinds: ['memslot', 'zap-all'] }), /^Trace { kinds: memslot zap-all, lost: 0 }$/])
  const [own] = hostVms({ pid: process.pid })
  if (own) all.push([own, /^HostVm { pid: \d+, command: .*, vcpus: 2, (memslots: \d+, memory: 0x[0-9a-f]+, )?source: (bpf|procfs)(, torn)? }$/])
  all.push([tables(vm), /^Tables { rows: \d+, slots: \d+, leaves: \d+, format: (ept|x86), source: (bpf|memslots), host: .*, secondStage: .* }$/])
  return all
}

/** These are missing on some hosts (a mirror needs EPT or NPT), or are shown as plain objects. */
const optional = [
  'Mirror',
  'ListedSlot',
  // It takes interrupt controllers, which a VM whose vCPUs are listed here has not.
  'Irqfd',
  ...(isOk('userfaultfd') ? [] : ['DemandPaging']),
  ...(isOk('tracepoints by perf') ? [] : ['Trace']),
  ...(takesGuestMemfd() ? [] : ['GuestMemfd'])
]
function takesGuestMemfd(): boolean {
  if (!canRunVms) return false
  using kvm = Kvm.open()
  using one = kvm.createVm()
  return one.capabilities.check(core.capabilities.GUEST_MEMFD) > 0
}

test('each object is one short line', () => {
  const seen = objects()
  for (const [object, text] of seen) {
    const line = inspect(object, { depth: 9 })
    expect(line).toMatch(text)
    expect(line).not.toContain('\n')
  }
  // Each class that shows its objects must occur here.
  const made = new Set(seen.map(([object]) => object.constructor))
  const showing = Object.entries({ ...core, ...observing, ...testing } as Record<string, any>).filter(
    ([, type]) => typeof type === 'function' && type.prototype !== undefined && Object.hasOwn(type.prototype, inspect.custom)
  )
  expect(showing.length).toBeGreaterThan(20)
  expect(showing.filter(([name, type]) => !made.has(type) && !optional.includes(name)).map(([name]) => name)).toEqual([])
})

test('a closed object says so, and its memory and descriptors are no part of it', () => {
  const mapping = Mapping.anonymous(4096)
  mapping.close()
  expect(inspect(mapping)).toMatch(/closed }$/)
  const slot = vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) })
  const { memslots } = vm
  vm.close()
  expect(inspect(slot)).toMatch(/deleted }$/)
  expect(inspect(memslots)).toMatch(/^Memslots { length: 0, limit: \d+, closed }$/)
})

test('an interrupt line is shown by what it raises, and the limits of a VM by their numbers', () => {
  vm.interrupts.createIrqchip()
  const line = vm.interrupts.irqfd({ gsi: 5 })
  expect(inspect(line)).toBe('Irqfd { gsi: 5 }')
  line.close()
  expect(inspect(line)).toBe('Irqfd { gsi: 5, closed }')
  const { memslots, guestPhysicalLimit } = vm.limits
  expect(inspect(vm.limits)).toContain(`memslots: ${memslots},`)
  expect(inspect(vm.limits)).toContain(`guestPhysicalLimit: ${guestPhysicalLimit}`)
})

test('what a stranger named is printable, and what is false is left out', () => {
  expect(shown('Thing', { name: 'a\x1b[31m\n', yes: true, no: false, none: undefined, size: 0 })).toBe(
    'Thing { name: a\\x1b[31m\\x0a, yes, size: 0 }'
  )
  expect(shown('Thing', {})).toBe('Thing {}')
})
