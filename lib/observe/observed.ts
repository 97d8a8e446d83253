/** Observes a VM: its three tables, and what KVM does to them. The VM itself does not know that it is observed. */
import type { Gpa } from '../abi/addresses.js'
import { argumentError } from '../abi/arguments.js'
import { observedOf, type Vm } from '../kvm/vm/vm.js'
import { spteFormat } from './host.js'
import { type HostVm, subjectOfHostVm } from './tables/host-vms.js'
import { type Mirror, makeMirror, subjectOfMirror } from './tables/mirror.js'
import { readTables, type Subject, type TableRange, type Tables } from './tables/tables.js'
import { type Translation, translateIn } from './tables/translate.js'
import { Trace, type TraceOptions } from './trace/trace.js'

/** An object with the three tables: a VM of this process, one of {@link hostVms}, or a VM of this process as its {@link mirror} shows it. */
export type HasTables = Vm | HostVm | Mirror

function observed(vm: Vm): { fd: number; isClosing: () => boolean } {
  const found = observedOf(vm)
  if (!found) throw argumentError('vm', vm, 'a Vm of this process')
  return found
}

function subjectOf(vm: HasTables): Subject {
  const found = observedOf(vm)
  if (found) return { pid: process.pid, fd: found.fd, own: (vm as Vm).memslots }
  const subject = subjectOfHostVm(vm) ?? subjectOfMirror(vm)
  if (!subject) throw argumentError('vm', vm, 'a Vm, what hostVms() returned, or what mirror() returned')
  return subject
}

/**
 * Records from now on what KVM's address translation does for a VM of this process: violations, changes of the second stage, calls of the MMU
 * notifier. KVM's events name the process and the thread, but not the VM, so events of another VM of this process appear among them. {@link Trace.of}
 * traces other processes.
 * @throws KvmError `permission` without CAP_PERFMON or root, `unavailable` without tracefs, `closed`
 * @example
 * using recording = trace(vm)
 * vm.memslots.create({ gpa: 0xa000, mapping: page }).move(0xe000)
 * for (const event of recording.drain()) console.log(event.kind, event.elapsed)
 */
export function trace(vm: Vm, options?: TraceOptions): Trace {
  const { isClosing } = observed(vm)
  const counters = () => (isClosing() ? [] : [vm.stats, ...[...vm.vcpus.values()].filter(({ closed }) => !closed).map(({ stats }) => stats)])
  return Trace.of({ memslots: vm.memslots, spteFormat: spteFormat(), processes: [process.pid], counters }, options)
}

/**
 * Translates a GPA by each of the three tables.
 * @throws KvmError `closed` if the VM is gone, `unavailable` if another process's VM cannot be read, `argument` for a value that is no address
 * @example
 * const { hva, hpa, secondStage, agrees } = translate(vm, 0xa000)
 */
export function translate(vm: HasTables, gpa: Gpa): Translation {
  return translateIn(subjectOf(vm), gpa)
}

/**
 * Reads all three tables, as columns.
 * @param range `size` bytes of GPAs from `gpa` on; the default is everything
 * @throws KvmError `closed` if the VM is gone, `unavailable` if another process's VM cannot be read
 * @example
 * const { gpa, hpa, level, evidence } = tables(vm)
 */
export function tables(vm: HasTables, range?: TableRange): Tables {
  return readTables(subjectOf(vm), range)
}

/**
 * Keeps a copy of the third table of a VM of this process, which trace events update from now on. It is for hosts where BPF cannot read the table.
 * Begin before the guest runs.
 * @throws KvmError `unavailable` where the copy would not be exact (shadow paging), `permission` where tracing is not allowed, `closed`
 */
export function mirror(vm: Vm): Mirror {
  const { fd } = observed(vm)
  const mapped = () => {
    const { pages_4k: small, pages_2m: huge, pages_1g: largest } = vm.stats.read() as Record<string, number | undefined>
    return small === undefined ? undefined : small + (huge ?? 0) + (largest ?? 0)
  }
  return makeMirror({ fd, memslots: vm.memslots, mapped })
}
