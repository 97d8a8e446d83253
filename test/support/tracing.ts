import { KvmError, type Vm } from 'node-kvm'
import { describeHost, type TraceEvent, type TraceKind, trace } from 'node-kvm/observe'
import type { TestContext } from 'vitest'
import { skip } from './skip.js'

/** Skips the test where tracepoints may not be used, with the library's own reason. */
export function needsTracing(context: TestContext, vm: Vm): void {
  try {
    trace(vm, { kinds: [] }).close()
  } catch (error) {
    if (error instanceof KvmError && (error.code === 'permission' || error.code === 'unavailable')) skip(context, error.message)
    throw error
  }
}

const { mmu, tdpMmu } = describeHost()
/** Whether KVM reports violations and each entry's change here: it does not where it shadows page tables. */
export const tellsViolations = tdpMmu && (mmu === 'ept' || mmu === 'npt')

export type Kind<K extends TraceKind> = Extract<TraceEvent, { kind: K }>
export const ofKind = <K extends TraceKind>(events: readonly TraceEvent[], kind: K) => events.filter((event): event is Kind<K> => event.kind === kind)
