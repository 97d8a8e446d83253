// A VM in a separate process. The process does what its standard input says, a JSON object a line, and answers each line with the truth about itself.
// Tests of other processes' VMs compare with these answers.
import { createInterface } from 'node:readline'
import { KiB, Kvm, Mapping, MiB } from '../../dist/lib/index.js'
import { readPagemap } from '../../dist/lib/observe/index.js'
import { Guest } from '../../dist/lib/testing/index.js'

const kvm = Kvm.open()
let vm = kvm.createVm()
let slots = []
let guest
let moving

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`)
const truthOf = (gpa) => {
  const slot = vm.memslots.lookup(gpa)
  const hva = slot.hva + (gpa - slot.gpa)
  return { gpa, hva, hpa: readPagemap(hva)[0].hpa ?? null }
}

const actions = {
  /** Makes a new VM in the place of the old one. */
  reset() {
    vm.close()
    for (const { mapping } of slots) mapping.close()
    vm = kvm.createVm()
    slots = []
    return {}
  },
  /** Makes `count` slots of `size` bytes, whose GPAs are not in the order of their creation. */
  slots({ count, size, gpa = 0x100_0000, gap = 64 * KiB, hugePages = false, dirty = false }) {
    for (let index = 0; index < count; index++) {
      const mapping = Mapping.anonymous(size, { hugePages })
      slots.push({ slot: vm.memslots.create({ gpa: gpa + (count - 1 - index) * (size + gap), mapping, logDirty: dirty }), mapping })
    }
    return { slots: vm.memslots.toJSON().map(({ id, gpa, size, hva }) => ({ id, gpa, size, hva })) }
  },
  guest() {
    guest = Guest.create(vm)
    return {}
  },
  touch({ gpa, pages, how = 'write' }) {
    return guest.touch(gpa, pages, how, 1)
  },
  touchAll() {
    return slots.map(({ slot }) => guest.touch(slot.gpa, slot.size / 4096, 'write', 1))
  },
  truth({ gpas }) {
    return { truth: gpas.map(truthOf) }
  },
  advise({ index, advice, offset, length }) {
    try {
      slots[index].mapping.advise(advice, offset, length)
      return {}
    } catch (error) {
      return { error: error.message }
    }
  },
  /** KVM's own counters for the VM and its vCPU. */
  statistics() {
    return { vm: vm.stats.read(), vcpu: guest.vcpu.stats.read() }
  },
  protect({ index, protection }) {
    slots[index].mapping.protect(protection)
    return {}
  },
  /** Moves every slot to and fro until told to stop. */
  move({ by, from = 0 }) {
    let there = false
    let moves = 0
    const started = performance.now()
    moving = () => {
      for (const end = performance.now() + 5; performance.now() < end; ) {
        const order = there ? slots.slice(from) : slots.slice(from).reverse()
        for (const { slot } of order) slot.move(slot.gpa + (there ? -by : by))
        moves += order.length
        there = !there
      }
      if (moving) setImmediate(moving)
      else say({ moves, milliseconds: performance.now() - started })
    }
    setImmediate(moving)
    return {}
  },
  remap({ index, offset, length }) {
    slots[index].mapping.remap(offset, length)
    return {}
  },
  stop() {
    moving = undefined
  },
  manySlots({ count }) {
    const mapping = Mapping.anonymous(4 * KiB)
    for (let index = 0; index < count; index++) vm.memslots.create({ gpa: 0x1_0000_0000 + index * 8 * KiB, mapping })
    return { slots: vm.memslots.length }
  },
  file({ path }) {
    vm.memslots.create({ gpa: 0x8000_0000, mapping: Mapping.file(path, MiB) })
    vm.memslots.create({ gpa: 0x9000_0000, mapping: Mapping.memfd(MiB) })
    return {}
  }
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { do: what, ...rest } = JSON.parse(line)
    const answer = actions[what](rest)
    if (answer) say(answer)
  })
  .on('close', () => process.exit(0))
BigInt.prototype.toJSON = function () {
  return Number(this)
}
say({ pid: process.pid, keep: [kvm.closed ?? false, vm.closed] })
