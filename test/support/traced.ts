/** A guest and memory for each test of a file, where tracepoints may be used. */
import { KiB, Mapping, type Vm } from 'node-kvm'
import type { TraceEvent, TraceKind } from 'node-kvm/observe'
import { Guest } from 'node-kvm/testing'
import { beforeEach } from 'vitest'
import { needsTracing, ofKind } from './tracing.js'

export const gpa = 0x10_0000
export const hits = (events: readonly TraceEvent[], at: number) =>
  ofKind(events, 'notifier-unmap').filter(({ gpas }) => gpas?.some((hit) => at >= hit.gpa && at < hit.gpa + hit.size))
/** The causes of an event; its own kind comes first. */
export function causes(event: TraceEvent): TraceKind[] {
  return event.cause ? [event.cause.kind, ...causes(event.cause)] : []
}

export let guest: Guest
export let ram: Mapping
let vm: Vm
/** Each file must call this: hooks belong to a file, but this module is evaluated once for several files that share a process. */
export function prepareEachTest(vmOfTest: () => Vm): void {
  beforeEach((context) => {
    vm = vmOfTest()
    needsTracing(context, vm)
    guest = Guest.create(vm)
    ram = Mapping.anonymous(64 * KiB, { hugePages: false })
  })
}
/** Makes a memslot over `ram`, which the guest touches. */
export function touched() {
  const slot = vm.memslots.create({ gpa, mapping: ram })
  guest.touch(gpa, 16, 'write', 1)
  return slot
}
