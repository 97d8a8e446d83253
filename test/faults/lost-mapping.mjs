// Loses the handles of mappings whose pages JavaScript serves: of one with a VM that is closed, and of others without any.
import { readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Kvm, Mapping } from '../../dist/lib/index.js'
import { Guest } from '../../dist/lib/testing/index.js'

const userfaultfds = () =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('userfaultfd')
    } catch {
      return false
    }
  }).length

function lose(vm) {
  const mapping = Mapping.anonymous(65536)
  mapping.onMissing(() => new Uint8Array(4096).fill(7))
  vm?.memslots.create({ gpa: 0x1_0000, mapping })
}

const vm = Kvm.open().createVm()
const guest = Guest.create(vm)
lose(vm)
console.log(guest.read(0x1_0000).value)
vm.close()
for (let index = 0; index < 10; index++) lose()
if (globalThis.gc) {
  for (let round = 0; round < 100 && userfaultfds() > 1; round++) {
    gc()
    await sleep(20)
  }
  // A register of the interpreter may still hold the mapping of the closed VM.
  console.log('left', Math.max(0, userfaultfds() - 1))
}
