/** An address of one space is not an address of another: tsc must accept some of these calls, and refuse the others. */
import { type Gpa, type Hpa, type Hva, KiB, Mapping, type MemslotOptions, type Vm } from 'node-kvm'
import { hpaToGpa, hvaToGpa, readPagemap, rowOf, type Tables, translate } from 'node-kvm/observe'

/** Calls that compile, and calls that must not. They are never made. */
export function compiled(vm: Vm, gpa: Gpa, hva: Hva, hpa: Hpa, plain: number, table: Tables, mapping: Mapping): unknown[] {
  const placed: MemslotOptions = { gpa: 0xa000, mapping }
  return [
    vm.memslots.lookup(0xa000),
    vm.memslots.lookup(plain),
    vm.memslots.lookup(gpa + 4096),
    vm.memslots.lookup(vm.memslots.create(placed).gpa),
    translate(vm, gpa),
    readPagemap(mapping.address),
    readPagemap(hva),
    hvaToGpa(table, hva).map((each) => rowOf(table, each)),
    hpaToGpa(table, hpa),
    // @ts-expect-error a host-virtual address
    vm.memslots.lookup(hva),
    // @ts-expect-error a host-virtual address
    vm.memory.read(mapping.address, 1),
    // @ts-expect-error a host-virtual address
    vm.memslots.create({ gpa: hva, mapping }),
    // @ts-expect-error a host-virtual address
    translate(vm, vm.memslots.create(placed).hva),
    // @ts-expect-error a host-physical address
    rowOf(table, hpa),
    // @ts-expect-error a guest-physical address
    readPagemap(gpa),
    // @ts-expect-error a guest-physical address
    hvaToGpa(table, gpa),
    // @ts-expect-error a host-virtual address
    hpaToGpa(table, hva),
    // @ts-expect-error a guest-physical address
    Mapping.anonymous(4 * KiB, { address: gpa })
  ]
}
