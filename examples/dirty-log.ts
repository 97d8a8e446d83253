// Which pages did the guest write? KVM keeps a bitmap for a slot that asks for one. Reading the bitmap begins the next round.
import { KiB, Kvm, Mapping, MiB } from 'node-kvm'
import { Guest } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
const guest = Guest.create(vm)
using ram = Mapping.anonymous(2 * MiB)
const slot = vm.memslots.create({ gpa: 0x20_0000, mapping: ram, logDirty: true })
const hex = (pages: number[]) => pages.map((gpa) => `0x${gpa.toString(16)}`).join(' ') || 'none'

guest.touch(slot.gpa, 3, 'read')
console.log(`after reading three pages: ${hex(slot.dirtyPages())}`)
guest.touch(slot.gpa + 4 * KiB, 2, 'write', 1)
guest.write(slot.gpa + 64 * KiB, 1n)
console.log(`after writing three:       ${hex(slot.dirtyPages())}`)
console.log(`asked again:               ${hex(slot.dirtyPages())}`)
ram.fill(7, 0, 4 * KiB)
console.log(`written by the host:       ${hex(slot.dirtyPages())}`)
