import { Vm } from 'node-kvm'
import { tables } from 'node-kvm/observe'
import { expect } from 'vitest'
import { refused } from './tables.js'

const rowsOf = (vm: Vm) => [...vm.memslots].map(({ id, gpa, size, hva, flags }) => ({ id, gpa, size, hva, flags }))

/** Expects that the tables of all these environments equal the table of one that begins now and, where it can be read, the kernel's table. */
export function expectOneTable(...vms: [Vm, ...Vm[]]): void {
  const fresh = Vm.attach(vms[0].share())
  const truth = rowsOf(fresh)
  for (const vm of vms) {
    expect(rowsOf(vm)).toEqual(truth)
    expect(vm.memslots.length).toBe(truth.length)
    for (const slot of vm.memslots) {
      expect(slot.deleted).toBe(false)
      expect(vm.memslots.lookup(slot.gpa + slot.size - 1)).toBe(slot)
    }
  }
  if (!refused) {
    const kernel = tables(fresh).slots.filter(({ addressSpace }) => addressSpace === 0)
    expect(kernel.map(({ id, gpa, size, hva, flags }) => ({ id, gpa, size, hva, flags }))).toEqual(truth)
  }
  fresh.close()
}
