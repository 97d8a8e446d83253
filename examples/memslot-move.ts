// A memslot moves to another guest address. Then other memory is put behind it. The guest sees each change at its next access.
import { KiB, Kvm, Mapping } from 'node-kvm'
import { Guest } from 'node-kvm/testing'

using kvm = Kvm.open()
using vm = kvm.createVm()
const guest = Guest.create(vm)
const see = (gpa: number) => {
  const access = guest.read(gpa)
  return access.reason === 'done'
    ? `reads 0x${access.value.toString(16)}`
    : access.reason === 'mmio'
      ? 'gets an MMIO exit'
      : `fails: ${access.exit.reason}`
}

using page = Mapping.anonymous(4 * KiB)
using other = Mapping.anonymous(4 * KiB)
page.fill(0xaa)
other.fill(0xbb)

const slot = vm.memslots.create({ gpa: 0xa000, mapping: page })
console.log(`slot at 0xa000: the guest ${see(0xa000)}`)
slot.move(0xe000)
console.log(`moved to 0xe000: at 0xa000 the guest ${see(0xa000)}, at 0xe000 it ${see(0xe000)}`)
slot.rebind(other)
console.log(`rebound: at 0xe000 the guest ${see(0xe000)}`)
slot.delete()
console.log(`deleted: at 0xe000 the guest ${see(0xe000)}`)
