/** Tries each thing that the library does, once and in the way the library does it. This module is imported only if the add-on loads. */
import { KvmError } from '../../abi/errors.js'
import { type CapabilityName, capabilities } from '../../abi/generated/capabilities.js'
import { Kvm } from '../../kvm/kvm.js'
import { Mapping } from '../../memory/mapping.js'
import { tryReading } from '../tables/reader.js'
import { Trace } from '../trace/trace.js'
import { Tracefs } from '../trace/tracefs.js'

/** Why a trial failed; null if it worked. */
export type Refusal = Pick<KvmError, 'code' | 'errno' | 'message'> | null

async function tried(trial: () => unknown): Promise<Refusal> {
  try {
    await trial()
    return null
  } catch (error) {
    if (error instanceof KvmError) return error
    // This is Node's own error, for a file that the library reads.
    const { code, message } = error as NodeJS.ErrnoException
    return { code: 'unavailable', message, ...(code === undefined ? {} : { errno: code }) }
  }
}

/** Runs a machine of one page, whose guest halts at its first instruction: once on this thread, and once on a thread of its own. */
export function runGuest(): Promise<Refusal> {
  return tried(async () => {
    using kvm = Kvm.open()
    using vm = kvm.createVm()
    using page = Mapping.anonymous(4096)
    page.write(0, Uint8Array.of(0xf4, 0xf4))
    vm.memslots.create({ gpa: 0, mapping: page })
    using vcpu = vm.createVcpu().enter('real', { ip: 0 })
    const { reason } = vcpu.run({ timeoutMs: 10_000 })
    if (reason !== 'hlt') throw new KvmError('unavailable', `a guest should halt, but left with '${reason}'; see dmesg | tail`)
    const end = await vcpu.start({})
    if (end.reason !== 'hlt') throw new KvmError('unavailable', `a guest on a thread of its own should halt, but ended with '${end.reason}'`)
  })
}

/** Returns the value of KVM_CHECK_EXTENSION for each capability, or null if /dev/kvm cannot be opened. */
export function checkExtensions(): Record<CapabilityName, number> | null {
  try {
    using kvm = Kvm.open()
    using _vm = kvm.createVm()
    return Object.fromEntries(Object.entries(capabilities).map(([name, number]) => [name, kvm.capabilities.check(number)])) as Record<
      CapabilityName,
      number
    >
  } catch (error) {
    if (error instanceof KvmError) return null
    throw error
  }
}

/** Reads the description of a tracepoint of KVM, wherever the library would find it. */
export function readTracepoint(): Promise<Refusal> {
  return tried(() => {
    using tracefs = new Tracefs()
    if (tracefs.read('kvm/kvm_userspace_exit', 'format') === null)
      throw new KvmError('unavailable', 'the kernel describes no tracepoints of KVM; is kvm loaded?', { errno: 'ENOENT' })
  })
}

/** Opens a trace of this process, as `trace(vm)` does. */
export const openTrace = (ringSize?: number): Promise<Refusal> =>
  tried(() => Trace.of({ spteFormat: 'x86', processes: [process.pid] }, ringSize === undefined ? {} : { ringSize })[Symbol.dispose]())

/** Loads the BPF program, or returns why it does not load. */
export const loadReader = (): Promise<Refusal> =>
  tried(() => {
    const why = tryReading()
    if (why) throw new KvmError('unavailable', why)
  })

export function servePageFaults(): Promise<Refusal> {
  return tried(() => {
    using page = Mapping.anonymous(4096)
    page.onMissing({ content: new Uint8Array() }).close()
  })
}

export const mapHugePage = (hugePageSize: number): Promise<Refusal> =>
  tried(() => Mapping.hugetlb(hugePageSize, { hugePageSize, populate: true })[Symbol.dispose]())

export const mapMemory = (bytes: number): Promise<Refusal> => tried(() => Mapping.anonymous(bytes)[Symbol.dispose]())
