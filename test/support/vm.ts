import { readFileSync } from 'node:fs'
import { Kvm, type Vm } from 'node-kvm'
import { afterEach, beforeEach, expect } from 'vitest'
import { needsKvm } from './needs.js'
import { inLab } from './skip.js'

/**
 * A VM for each test of the file that imports this; it is closed after the test. Modules that files share do not import this, but are given the VM:
 * see vitest.config.ts.
 */
export let kvm: Kvm
export let vm: Vm

/** In the lab this is evaluated for every test file (vitest.config.ts), also for those without a VM. */
const isImported = !inLab || readFileSync(expect.getState().testPath as string, 'utf8').includes("'../support/vm.js'")

if (isImported) {
  beforeEach((context) => {
    needsKvm(context)
    kvm = Kvm.open()
    vm = kvm.createVm()
  })
  afterEach(() => {
    vm?.close()
    kvm?.close()
  })
}
