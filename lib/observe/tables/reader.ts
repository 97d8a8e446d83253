/** Reads VMs with BPF. If the memslots changed meanwhile, it reads again; if reading is not possible, it returns the reason. */
import { exhaustion } from '../../abi/errors.js'
import { making } from '../../abi/exhausted.js'
import { type NativeMachine, native, type TableFailure } from '../../abi/native.js'
import { kernelSymbols } from './kernel-symbols.js'
import { explainRefusal, missingOnHost, readingHost } from './refusal.js'

/** How often to read before giving up because the memslots kept changing. */
const mostAttempts = 20
/** Bit 63 of kvm_memslots.generation: an update is in progress (KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS). */
const updateInProgress = 1n << 63n

/** The VMs to read. */
export interface Which {
  pid?: number
  fd?: number
  /** Whether to read the second stage too. */
  tables: boolean
}

/** One VM, as it was read. */
export interface ReadVm extends NativeMachine {
  torn: boolean
  attempts: number
  /** Whether it was closed, or its process ended, during the reading: its parts may then be of different moments. */
  ended: boolean
}

const isFailure = (result: NativeMachine[] | TableFailure): result is TableFailure => !Array.isArray(result)

function changedMeanwhile({ generations, setSwapped, addressSpaces, failedReads }: NativeMachine): boolean {
  // A pointer that led nowhere also shows that something changed.
  if (setSwapped !== 0 || failedReads !== 0) return true
  const spaces = generations.length / 2
  return Array.from({ length: Math.min(addressSpaces, spaces) }, (_, space) => [
    generations[space] as bigint,
    generations[spaces + space] as bigint
  ]).some(([before, after]) => before !== after || ((before as bigint) & updateInProgress) !== 0n)
}

function ask({ pid = 0, fd = -1, tables }: Which): NativeMachine[] | string {
  // A reading that is known to be refused is not tried, because the kernel's answer would say less.
  const host = readingHost()
  const known = missingOnHost(host)
  if (known) return `${known.why}; ${known.remedy}`
  const result = making(() => {
    const read = native.readTables({ pid, fd, tables, ...kernelSymbols() })
    const exhausted = isFailure(read) && exhaustion('reading VMs in the kernel', read.error)
    if (exhausted) throw exhausted
    return read
  })
  return isFailure(result) ? explainRefusal(result, host) : result
}

/**
 * Returns the VMs whose memory belongs to the process that holds them, and other descriptors of VMs; or the reason why they cannot be read.
 * @internal
 */
export function readVms(which: Which): ReadVm[] | string {
  const found = ask(which)
  if (typeof found === 'string') return found
  return found.map((vm) => settle(vm, which))
}

function settle(first: NativeMachine, { tables }: Which): ReadVm {
  let vm = first
  for (let attempts = 1; ; attempts++) {
    const torn = changedMeanwhile(vm)
    if (!torn || attempts === mostAttempts) return { ...vm, torn, attempts, ended: false }
    const again = ask({ pid: vm.pid, fd: vm.fd, tables })
    const same = Array.isArray(again) ? again.find(({ kvm }) => kvm === vm.kvm) : undefined
    if (!same) return { ...vm, torn, attempts, ended: Array.isArray(again) }
    vm = same
  }
}

/**
 * Loads the program if it is not loaded yet. Returns null, or the reason why it was refused.
 * @throws KvmError `limit` or `memory` if this process lacks the resources for it
 */
export function tryReading(): string | null {
  const host = readingHost()
  const known = missingOnHost(host)
  if (known) return `${known.why}; ${known.remedy}`
  const failure = making(() => {
    const failure = native.loadTables()
    const exhausted = failure && exhaustion('loading the BPF program', failure.error)
    if (exhausted) throw exhausted
    return failure
  })
  return failure && explainRefusal(failure, host)
}
