/**
 * The thread of October 2020, replayed: three tables, and what happens to the third when somebody changes one of the first two.
 * Each step does what the thread describes to a real guest, and checks what follows.
 */
import { hex, KiB, pageSize } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { describeHost, type Host } from '../abi/host.js'
import { Kvm } from '../kvm/kvm.js'
import type { Vcpu } from '../kvm/vcpu.js'
import type { Vm } from '../kvm/vm.js'
import { type Access, Guest } from '../machine/guest.js'
import { Mapping } from '../memory/mapping.js'
import type { Memslot } from '../memory/memslot.js'
import type { TraceEvent } from '../trace/events.js'
import { readPagemap } from '../translation/pagemap.js'
import { type Link, links, missingLink, Witness } from './witness.js'

/** One thing that must hold. */
export interface Check {
  name: string
  ok: boolean
  /** What was seen, where the check failed. */
  seen?: string
}

/** Second-stage counters before and after the step: faults that KVM fixed, and pages mapped. Absent where the kernel has no such statistic. */
export interface StepStatistics {
  pfFixedBefore?: number
  pfFixedAfter?: number
  pages4kBefore?: number
  pages4kAfter?: number
  /** Right after the host's change, before the guest's next access. */
  pages4kChanged?: number
}

/** One step: the three tables after it, and what must hold. */
export interface Step {
  name: string
  /** What the step did, in one line. */
  did: string
  /** What the thread says of it. */
  means: string
  gpa: number
  /** null where no memslot covers the GPA. */
  hva: number | null
  /** null without the privilege to see frame numbers, or without a page. */
  hpa: number | null
  /** What the guest's access came to: the word read, or the exit. */
  access: string
  stats: StepStatistics
  checks: Check[]
  /** What the kernel was seen to do; empty where tracepoints may not be used. */
  events: TraceEvent[]
  /** Events that were missed. */
  lost: number
}

/** The whole of it, as `--json` prints it. */
export interface Walkthrough {
  host: Host
  steps: Step[]
  /** What could not be shown here, and why. */
  notes: string[]
  ok: boolean
}

const threadGpa = 0xa000
const movedGpa = 0xe000
const words = { first: 0x1111_1111_1111_1111n, remapped: 0x2222_2222_2222_2222n, rebound: 0x3333_3333_3333_3333n, byGuest: 0x4444_4444_4444_4444n }

const pageOf = (word: bigint) => new Uint8Array(new BigUint64Array(pageSize / 8).fill(word).buffer)
const wordAt = (mapping: Mapping, offset = 0) => new DataView(mapping.read(offset, 8).buffer).getBigUint64(0, true)
const describeAccess = (access: Access) =>
  access.reason === 'done'
    ? `read ${hex(access.value)}`
    : access.reason === 'mmio'
      ? `MMIO exit at gpa ${hex(access.gpa)}`
      : `${access.exit.reason} exit`

/** The thread's machine, and the means to look at it. */
class Scene implements Disposable {
  readonly kvm = Kvm.open()
  readonly vm: Vm = this.kvm.createVm()
  readonly guest: Guest = Guest.create(this.vm)
  readonly vcpu: Vcpu = this.guest.vcpu
  readonly witness: Witness

  constructor({ mmu, tdpMmu }: Host) {
    this.witness = new Witness(this.vm, mmu, tdpMmu)
  }

  /** The physical address behind an HVA, or null where the process may not know it. */
  frame(hva: number): number | null {
    return readPagemap(hva)[0]?.hpa ?? null
  }
  pages4k = (): number | undefined => this.vm.stats.read()['pages_4k'] as number | undefined
  pfFixed = (): number | undefined => this.vcpu.stats.read()['pf_fixed'] as number | undefined;

  [Symbol.dispose](): void {
    this.witness[Symbol.dispose]()
    this.vm.close()
    this.kvm.close()
  }
}

type Story = Omit<Step, 'stats' | 'checks' | 'hpa' | 'events' | 'lost'>

/** Takes the counters around a step: `change` is what the host does, `look` the guest's next access. */
function watch(scene: Scene, change: () => void, look: () => void): StepStatistics {
  const entries = { pfFixedBefore: scene.pfFixed(), pages4kBefore: scene.pages4k() }
  change()
  const changed = { pages4kChanged: scene.pages4k() }
  look()
  const all = { ...entries, ...changed, pfFixedAfter: scene.pfFixed(), pages4kAfter: scene.pages4k() }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

class Checks {
  readonly list: Check[] = []
  add(name: string, ok: boolean, seen: unknown = ''): void {
    this.list.push(ok ? { name, ok } : { name, ok, seen: String(seen) })
  }
  same(name: string, seen: number | bigint | null, expected: number | bigint | null): void {
    this.add(name, seen === expected, `${seen === null ? null : hex(seen)}, not ${expected === null ? null : hex(expected)}`)
  }
  reads(name: string, access: Access, expected: bigint): void {
    this.add(name, access.reason === 'done' && access.value === expected, describeAccess(access))
  }
  mmio(name: string, access: Access, gpa: number): void {
    this.add(name, access.reason === 'mmio' && access.gpa === gpa, describeAccess(access))
  }
  /** Only where the kernel has the statistic. */
  faulted({ pfFixedBefore, pfFixedAfter }: StepStatistics): void {
    if (pfFixedBefore !== undefined && pfFixedAfter !== undefined)
      this.add('the access took a fault that KVM fixed: pf_fixed rose', pfFixedAfter > pfFixedBefore, `${pfFixedBefore} -> ${pfFixedAfter}`)
  }
  dropped(what: string, { pages4kBefore, pages4kChanged }: StepStatistics): void {
    if (pages4kBefore !== undefined && pages4kChanged !== undefined)
      this.add(`${what} dropped the second-stage entry: pages_4k fell`, pages4kChanged < pages4kBefore, `${pages4kBefore} -> ${pages4kChanged}`)
  }
}

function finish(scene: Scene, story: Story, stats: StepStatistics, checks: Checks, told: readonly Link[]): Step {
  const { events, lost } = scene.witness.take()
  const shown = scene.witness.story(told)
  if (shown.length > 0) {
    const missing = missingLink(events, shown)
    checks.add(
      `events in order: ${shown.map(([name]) => name).join(' -> ')}`,
      missing === undefined,
      `missing after the others: ${missing}; lost ${lost}`
    )
  }
  return { ...story, hpa: story.hva === null ? null : scene.frame(story.hva), stats, checks: checks.list, events, lost }
}

function firstAccess(scene: Scene, page: Mapping, slot: Memslot): Step {
  const checks = new Checks()
  let access!: Access
  const stats = watch(
    scene,
    () => page.write(0, pageOf(words.first)),
    () => {
      access = scene.guest.read(threadGpa)
    }
  )
  checks.same("the memslot maps the GPA to the mapping's HVA", scene.vm.memslots.lookup(threadGpa)?.hva ?? null, page.address)
  checks.reads('the guest reads what the host wrote', access, words.first)
  checks.faulted(stats)
  scene.guest.write(threadGpa, words.byGuest)
  checks.same('the host reads what the guest wrote', wordAt(page), words.byGuest)
  const story = {
    name: 'first access',
    did: `the guest reads gpa ${hex(threadGpa)}`,
    means: 'an EPT violation makes KVM fill the third table',
    gpa: threadGpa,
    hva: slot.hva
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [links.violated(threadGpa), links.set(threadGpa)])
}

function hvaRemapped(scene: Scene, page: Mapping, slot: Memslot): Step {
  const checks = new Checks()
  const before = { hva: slot.hva, hpa: scene.frame(slot.hva) }
  let access!: Access
  const stats = watch(
    scene,
    () => page.remap(0, pageSize, pageOf(words.remapped)),
    () => {
      access = scene.guest.read(threadGpa)
    }
  )
  const hpa = scene.frame(slot.hva)
  checks.same('the HVA is the same', slot.hva, before.hva)
  if (hpa !== null && before.hpa !== null) checks.add('the HPA is another', hpa !== before.hpa, `${hex(hpa)} both times`)
  checks.dropped('the MMU notifier', stats)
  checks.reads("the guest's next access sees the new page", access, words.remapped)
  checks.faulted(stats)
  const story = {
    name: 'HVA remapped',
    did: `another page under hva ${hex(slot.hva)}`,
    means: 'the MMU notifier drops the entry; the next access faults it in again',
    gpa: threadGpa,
    hva: slot.hva
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [
    links.call('mapping', 'remap'),
    links.notified(threadGpa),
    links.dropped(threadGpa),
    links.violated(threadGpa),
    links.set(threadGpa)
  ])
}

function slotMoved(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  const { hva } = slot
  let access!: Access
  const stats = watch(
    scene,
    () => slot.move(movedGpa),
    () => {
      access = scene.guest.read(movedGpa)
    }
  )
  checks.same('the HVA is the same', slot.hva, hva)
  checks.dropped('the move', stats)
  checks.reads('the guest reads the page at its new address', access, words.remapped)
  checks.mmio('the old address is MMIO now', scene.guest.read(threadGpa), threadGpa)
  const story = {
    name: 'slot moved',
    did: `gpa ${hex(threadGpa)} -> ${hex(movedGpa)}, one ioctl`,
    means: 'KVM drops all old translations of the slot',
    gpa: movedGpa,
    hva: slot.hva
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [
    links.call('memslot', 'move'),
    links.zapped(),
    links.violated(movedGpa),
    links.set(movedGpa),
    links.mmio(threadGpa)
  ])
}

function slotRebound(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  const before = slot.hva
  const other = Mapping.anonymous(4 * KiB)
  other.write(0, pageOf(words.rebound))
  let access!: Access
  const stats = watch(
    scene,
    () => slot.rebind(other),
    () => {
      access = scene.guest.read(movedGpa)
    }
  )
  checks.same('the slot points to the other mapping', slot.hva, other.address)
  checks.add('the HVA is another', slot.hva !== before, hex(before))
  checks.same('the GPA is the same', slot.gpa, movedGpa)
  checks.reads('the guest reads the other page', access, words.rebound)
  checks.faulted(stats)
  const story = {
    name: 'slot rebound',
    did: `hva ${hex(before)} -> ${hex(slot.hva)}, delete and create`,
    means: "a slot's HVA cannot be changed in place; the new slot starts with an empty third table",
    gpa: movedGpa,
    hva: slot.hva
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [
    links.call('memslot', 'rebind'),
    links.zapped(),
    links.violated(movedGpa),
    links.set(movedGpa)
  ])
}

function noMemslot(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  let access!: Access
  const stats = watch(
    scene,
    () => slot.delete(),
    () => {
      access = scene.guest.read(movedGpa)
    }
  )
  checks.same('no memslot covers the GPA', scene.vm.memslots.lookup(movedGpa)?.hva ?? null, null)
  checks.mmio("the guest's access is an MMIO exit", access, movedGpa)
  const story = {
    name: 'no memslot',
    did: 'the slot deleted',
    means: 'without GPA -> HVA there is nothing to translate: user space emulates the access',
    gpa: movedGpa,
    hva: null
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [
    links.call('memslot', 'delete'),
    links.zapped(),
    links.mmio(movedGpa)
  ])
}

/** Q2: what the layer between buys. */
function whyNotGpaIsHva(scene: Scene, notes: string[]): Step {
  const checks = new Checks()
  const { guest, vm } = scene
  const alias = 0x2_a000
  const page = Mapping.anonymous(4 * KiB)
  const atZero = Mapping.anonymous(4 * KiB)
  atZero.write(0, pageOf(words.first))
  const stats = watch(
    scene,
    () => {
      for (const gpa of [threadGpa, alias]) vm.memslots.create({ gpa, mapping: page })
      vm.memslots.create({ gpa: 0, mapping: atZero })
    },
    () => guest.write(threadGpa, words.byGuest)
  )
  const access = guest.read(alias)
  checks.reads('one HVA at two GPAs: a write at one is read at the other', access, words.byGuest)
  checks.reads('GPA 0 is backed', guest.read(0), words.first)
  checks.add('HVA 0 is not', !readPagemap(0)[0]?.present, 'a page at HVA 0')
  identity(scene, checks, notes)
  const story = {
    name: 'why GPA is not HVA',
    did: `one page at gpa ${hex(threadGpa)} and ${hex(alias)}; a page at gpa 0; a page where gpa == hva`,
    means: 'the layer gives aliases, addresses the host cannot use, and freedom to move',
    gpa: alias,
    hva: page.address
  }
  return finish(scene, { ...story, access: describeAccess(access) }, stats, checks, [
    links.violated(threadGpa),
    links.set(threadGpa),
    links.set(alias)
  ])
}

/** A page whose GPA and HVA are equal, where mmap gives one. */
function identity(scene: Scene, checks: Checks, notes: string[]): void {
  for (let address = 0x1000_0000; address < 0x3000_0000; address += 0x100_0000) {
    try {
      const mapping = Mapping.anonymous(4 * KiB, { address, fixed: true })
      mapping.write(0, pageOf(words.rebound))
      scene.vm.memslots.create({ gpa: address, mapping })
      checks.reads(`GPA == HVA (${hex(address)}) works where mmap allows it`, scene.guest.read(address), words.rebound)
      return
    } catch (error) {
      if (!(error instanceof KvmError && error.code === 'memory')) throw error
    }
  }
  notes.push('GPA == HVA was not shown: mmap gave no low address')
}

/**
 * Runs the six steps.
 * @param onStep called after each
 * @throws KvmError when there is no usable /dev/kvm
 * @example
 * const { ok, steps } = runWalkthrough()
 */
export function runWalkthrough(onStep: (step: Step, number: number) => void = () => {}): Walkthrough {
  const host = describeHost()
  using scene = new Scene(host)
  const notes: string[] = scene.witness.note === undefined ? [] : [scene.witness.note]
  const page = Mapping.anonymous(4 * KiB)
  const slot = scene.vm.memslots.create({ gpa: threadGpa, mapping: page })
  const steps: Step[] = []
  const plan = [
    () => firstAccess(scene, page, slot),
    () => hvaRemapped(scene, page, slot),
    () => slotMoved(scene, slot),
    () => slotRebound(scene, slot),
    () => noMemslot(scene, slot),
    () => whyNotGpaIsHva(scene, notes)
  ]
  for (const perform of plan) {
    const step = perform()
    steps.push(step)
    onStep(step, steps.length)
  }
  if (steps[0]?.hpa === null) notes.push('HPAs are not shown: frame numbers in /proc/self/pagemap need CAP_SYS_ADMIN (run with sudo)')
  return { host: describeHost(), steps, notes, ok: steps.every(({ checks }) => checks.every(({ ok }) => ok)) }
}
