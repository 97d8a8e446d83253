/**
 * Judges what must hold after a program: the kernel's table is the library's, memory has the bytes that were written, promises settle, nothing is
 * left.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { tables } from 'node-kvm/observe'
import { attempt, journal, progress, report } from './attempt.js'
import { judgeLedger } from './guests.js'
import { type Library, Vm } from './library.js'
import { end } from './workers.js'

type Mapping = Library.Mapping

/** Compares the memslots that the library names with those in the kernel's memory. */
export function judgeTable(vm: Library.Vm | undefined, when: string): void {
  if (!vm || vm.closed) return
  const read = attempt(() => tables(vm, { gpa: 0, size: 4096 }), vm)
  if (!read) return
  if (read.slots === undefined || read.gpa === undefined) report('wrong', 'tables() lacks its columns')
  if (read.evidence?.source !== 'bpf') return
  const row = ({ id, gpa, size, hva, flags }: Record<'id' | 'gpa' | 'size' | 'hva' | 'flags', number>) =>
    `${id}: ${gpa.toString(16)}+${size.toString(16)} at ${hva.toString(16)} flags ${flags}`
  const kernel = read.slots.filter(({ addressSpace }) => addressSpace === 0).map(row)
  const own = attempt(() => [...vm.memslots].map(row))
  if (own && own.sort().join() !== kernel.sort().join())
    report('wrong', `memslots ${when} are not those of the kernel`, `library [${own.join('; ')}], kernel [${kernel.join('; ')}]`)
}

/** Says what happens when a byte of a mapping is read, and when it is written back. */
export function probe(mapping: Mapping | undefined): string {
  const answerOf = (call: () => void) => {
    try {
      call()
      return 'worked'
    } catch (error) {
      return String((error as { code?: string }).code)
    }
  }
  if (!mapping || mapping.closed) return 'closed'
  let byte: Uint8Array = new Uint8Array(1)
  return [answerOf(() => void (byte = mapping.read(0, 1))), answerOf(() => mapping.write(0, byte))].join()
}

/** Judges that a call that fails leaves a mapping as it was. */
export function undone<T>(mapping: Mapping | undefined, call: () => T): T | undefined {
  const before = probe(mapping)
  const result = call()
  if (!journal().failed || before === 'closed') return result
  const after = probe(mapping)
  if (after !== before && after !== 'closed')
    report('wrong', `a call that failed left a mapping with ${after} for read and write; before: ${before}`, String(call))
  return result
}

/** Some of the mapping's memory itself, if it has a live buffer. */
export function live(mapping: Mapping | undefined): Uint8Array | undefined {
  const memory = attempt(() => mapping?.buffer, mapping)
  return memory && new Uint8Array(memory, 1, Math.min(5000, memory.byteLength - 1))
}

/** Judges that the bytes that were written are read. */
export function judgeCopy(mapping: Mapping | undefined, offset: number, bytes: Uint8Array | undefined): void {
  if (!mapping || !bytes) return
  const wanted = bytes.slice()
  const written = attempt(() => {
    mapping.write(offset, bytes)
    return mapping.read(offset, wanted.length)
  })
  if (written && Buffer.compare(written, wanted) !== 0) report('wrong', `${wanted.length} bytes written at ${offset} are read as other bytes`)
}

/** Judges that every promise of the library settles once everything is closed. */
export async function judgePromises(): Promise<void> {
  const { pending } = journal()
  for (let waited = 0; waited < 120 && pending.size > 0; waited++) {
    progress()
    await new Promise((resolve) => setTimeout(resolve, waited < 50 ? 1 : 20))
  }
  for (const call of pending.values()) report('hang', 'a promise never settled', call)
  pending.clear()
}

/** The descriptors and threads of this process that the library could have left. */
export function held(): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const name = readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, '')
      if (/kvm|perf|event|userfault|bpf|memfd|socket/.test(name)) counts[name] = (counts[name] ?? 0) + 1
    } catch {
      // This descriptor was the listing's own.
    }
  }
  counts['threads'] = readdirSync('/proc/self/task').length
  return counts
}

/** Returns what is held beyond `before` once nothing is in use and lost objects have been collected. */
export async function judgeLeaks(before: Record<string, number>): Promise<Record<string, number>> {
  const more = () => Object.entries(held()).filter(([name, count]) => count > (before[name] ?? 0))
  for (let tries = 0; tries < 12 && more().length > 0; tries++) {
    ;(globalThis as { gc?: () => void }).gc?.()
    await new Promise((resolve) => setTimeout(resolve, tries * 5))
    await nextTurn()
  }
  return Object.fromEntries(more())
}

/** A token that nobody has used holds its VM, which the program may have lost. */
export function closableOf(one: unknown): { close(): void } {
  return typeof one === 'object' && one !== null && 'nodeKvmVm' in one
    ? Vm.attach(one as Parameters<typeof Vm.attach>[0])
    : (one as { close(): void })
}

/** The end of every program. */
export async function judge(vms: (Library.Vm | undefined)[], crews: Parameters<typeof end>[0][], closable: unknown[]): Promise<void> {
  for (const crew of crews) await end(crew)
  for (const vm of vms) {
    judgeTable(vm, 'at the end')
    judgeLedger(vm)
  }
  // This runs twice, because a memslot holds a mapping until its VM is closed.
  const all = [...closable, ...journal().kept.splice(0)]
  for (const one of [...all].reverse().concat(all)) if (one !== undefined) attempt(() => closableOf(one).close())
  await nextTurn()
  await judgePromises()
}
