/** The six steps of the thread: what each does to a real guest, and what must follow from it. */
import { hex, KiB, pageSize } from '../abi/arguments.js'
import { KvmError } from '../abi/errors.js'
import { Mapping } from '../memory/mapping.js'
import type { Memslot } from '../memory/memslot.js'
import type { Mmu } from '../observe/host.js'
import { readPagemap } from '../observe/tables/pagemap.js'
import type { Scene } from './scene.js'
import { Checks, type Step } from './thread-step.js'
import { links } from './witness.js'

export const threadGpa = 0xa000
const movedGpa = 0xe000
const words = { first: 0x1111_1111_1111_1111n, remapped: 0x2222_2222_2222_2222n, rebound: 0x3333_3333_3333_3333n, byGuest: 0x4444_4444_4444_4444n }

const pageOf = (word: bigint) => new Uint8Array(new BigUint64Array(pageSize / 8).fill(word).buffer)
const wordAt = (mapping: Mapping, offset = 0) => new DataView(mapping.read(offset, 8).buffer).getBigUint64(0, true)

/** The event that makes KVM fill the third table, by its name on this host. */
const violations: Record<Mmu, string> = {
  ept: 'an EPT violation',
  npt: 'a nested page fault',
  shadow: 'a page fault',
  unknown: 'a fault'
}

export function firstAccess(scene: Scene, page: Mapping, slot: Memslot): Step {
  const checks = new Checks()
  const seen = scene.watch(
    { gpa: threadGpa },
    () => page.write(0, pageOf(words.first)),
    () => scene.guest.read(threadGpa)
  )
  checks.absent('before the first access the third table has no entry', seen.secondStage?.changed)
  checks.same("the memslot maps the GPA to the mapping's HVA", scene.vm.memslots.lookup(threadGpa)?.hva ?? null, page.address)
  checks.reads('the guest reads what the host wrote', seen.access, words.first)
  checks.faulted(seen)
  scene.guest.write(threadGpa, words.byGuest)
  checks.same('the host reads what the guest wrote', wordAt(page), words.byGuest)
  const story = {
    name: 'first access',
    did: `the guest reads gpa ${hex(threadGpa)}`,
    means: `${violations[scene.host.mmu]} makes KVM fill the third table`,
    gpa: threadGpa,
    hva: slot.hva
  }
  return scene.finish(story, seen, checks, [links.violated(threadGpa), links.set(threadGpa)])
}

export function hvaRemapped(scene: Scene, page: Mapping, slot: Memslot): Step {
  const checks = new Checks()
  const before = { hva: slot.hva, hpa: scene.frame(slot.hva) }
  const seen = scene.watch(
    { gpa: threadGpa },
    () => page.remap(0, pageSize, pageOf(words.remapped)),
    () => scene.guest.read(threadGpa)
  )
  const hpa = scene.frame(slot.hva)
  checks.same('the HVA is the same', slot.hva, before.hva)
  if (hpa !== null && before.hpa !== null) checks.add('the HPA is another', hpa !== before.hpa, `${hex(hpa)} both times`)
  checks.dropped('the MMU notifier', seen)
  checks.reads("the guest's next access sees the new page", seen.access, words.remapped)
  checks.faulted(seen)
  const story = {
    name: 'HVA remapped',
    did: `another page under hva ${hex(slot.hva)}`,
    means: 'the MMU notifier drops the entry; the next access faults it in again',
    gpa: threadGpa,
    hva: slot.hva
  }
  return scene.finish(story, seen, checks, [
    links.call('mapping', 'remap'),
    links.notified(threadGpa),
    links.dropped(threadGpa),
    links.violated(threadGpa),
    links.set(threadGpa)
  ])
}

export function slotMoved(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  const { hva } = slot
  const seen = scene.watch(
    { gpa: movedGpa, from: threadGpa },
    () => slot.move(movedGpa),
    () => scene.guest.read(movedGpa)
  )
  checks.same('the HVA is the same', slot.hva, hva)
  checks.dropped('the move', seen)
  checks.reads('the guest reads the page at its new address', seen.access, words.remapped)
  checks.absent('the old GPA has no entry either', scene.entryAt(threadGpa))
  checks.mmio('the old address is MMIO now', scene.guest.read(threadGpa), threadGpa)
  const story = {
    name: 'slot moved',
    did: `gpa ${hex(threadGpa)} -> ${hex(movedGpa)}, one ioctl`,
    means: 'KVM drops all old translations of the slot',
    gpa: movedGpa,
    hva: slot.hva
  }
  return scene.finish(story, seen, checks, [
    links.call('memslot', 'move'),
    links.zapped(),
    links.violated(movedGpa),
    links.set(movedGpa),
    links.mmio(threadGpa)
  ])
}

export function slotRebound(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  const before = slot.hva
  const other = Mapping.anonymous(4 * KiB)
  other.write(0, pageOf(words.rebound))
  const seen = scene.watch(
    { gpa: movedGpa },
    () => slot.rebind(other),
    () => scene.guest.read(movedGpa)
  )
  checks.dropped('the delete', seen)
  checks.same('the slot points to the other mapping', slot.hva, other.address)
  checks.add('the HVA is another', slot.hva !== before, hex(before))
  checks.same('the GPA is the same', slot.gpa, movedGpa)
  checks.reads('the guest reads the other page', seen.access, words.rebound)
  checks.faulted(seen)
  const story = {
    name: 'slot rebound',
    did: `hva ${hex(before)} -> ${hex(slot.hva)}, delete and create`,
    means: "a slot's HVA cannot be changed in place; the new slot starts with an empty third table",
    gpa: movedGpa,
    hva: slot.hva
  }
  return scene.finish(story, seen, checks, [links.call('memslot', 'rebind'), links.zapped(), links.violated(movedGpa), links.set(movedGpa)])
}

export function noMemslot(scene: Scene, slot: Memslot): Step {
  const checks = new Checks()
  const seen = scene.watch(
    { gpa: movedGpa },
    () => slot.delete(),
    () => scene.guest.read(movedGpa)
  )
  checks.dropped('the delete', seen)
  checks.same('no memslot covers the GPA', scene.vm.memslots.lookup(movedGpa)?.hva ?? null, null)
  checks.absent('and after the access there still is none', seen.secondStage?.accessed)
  checks.mmio("the guest's access is an MMIO exit", seen.access, movedGpa)
  const story = {
    name: 'no memslot',
    did: 'the slot deleted',
    means: 'without GPA -> HVA there is nothing to translate: user space emulates the access',
    gpa: movedGpa,
    hva: null
  }
  return scene.finish(story, seen, checks, [links.call('memslot', 'delete'), links.zapped(), links.mmio(movedGpa)])
}

/** Answers the thread's second question: what the layer between GPA and HPA is good for. */
export function whyNotGpaIsHva(scene: Scene, notes: string[]): Step {
  const checks = new Checks()
  const { guest, vm } = scene
  const alias = 0x2_a000
  const page = Mapping.anonymous(4 * KiB)
  const atZero = Mapping.anonymous(4 * KiB)
  atZero.write(0, pageOf(words.first))
  const seen = scene.watch(
    { gpa: alias },
    () => {
      for (const gpa of [threadGpa, alias]) vm.memslots.create({ gpa, mapping: page })
      vm.memslots.create({ gpa: 0, mapping: atZero })
    },
    () => {
      guest.write(threadGpa, words.byGuest)
      return guest.read(alias)
    }
  )
  checks.reads('one HVA at two GPAs: a write at one is read at the other', seen.access, words.byGuest)
  const other = scene.entryAt(threadGpa)
  if (other?.present && seen.secondStage?.accessed.present)
    checks.same('two entries of the third table lead to one frame', other.hpa, seen.secondStage.accessed.hpa)
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
  return scene.finish(story, seen, checks, [links.violated(threadGpa), links.set(threadGpa), links.set(alias)])
}

/** Tries a page whose GPA and HVA are equal, if mmap gives one. */
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
