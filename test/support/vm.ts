import { Kvm, type Vm } from 'node-kvm'
import { afterEach, beforeEach } from 'vitest'

/** A VM for each test of the file that imports this, closed after it. */
export let kvm: Kvm
export let vm: Vm

beforeEach(() => {
  kvm = Kvm.open()
  vm = kvm.createVm()
})
afterEach(() => {
  vm.close()
  kvm.close()
})
