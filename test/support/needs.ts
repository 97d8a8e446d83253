/** What a test needs of the host: if the host lacks it, the test is skipped with the doctor's reason. */
import type { Finding } from 'node-kvm/observe'
import { inject, type TestContext } from 'vitest'
import './examine.js'
import { skip } from './skip.js'

const { findings, ok } = inject('diagnosis')

/** Whether VMs can be run. A file asks this when it prepares something for all its tests, because a hook cannot skip them. */
export const canRunVms = ok

export const isOk = (name: string) => finding(name).ok

function finding(name: string): Finding {
  const one = findings.find((each) => each.name === name)
  const addon = findings.find((each) => each.name === 'add-on')
  // Without the add-on the doctor does not look at some things.
  const why = one ?? (addon?.ok === false ? addon : undefined)
  if (why === undefined) throw new Error(`the doctor has no finding '${name}'`)
  return why
}

function need(context: TestContext, ...names: string[]): void {
  for (const name of names) {
    const { ok, detail, remedy, advice } = finding(name)
    if (!ok) skip(context, [`${name}: ${detail}`, remedy ?? advice].filter(Boolean).join('; '))
  }
}

/** For tests that create VMs and run them. */
export const needsKvm = (context: TestContext) => need(context, '/dev/kvm', 'guests')
/** For tests that read the memslots in the kernel's memory. */
export const needsBpf = (context: TestContext) => need(context, 'BPF')
/** For tests that see the frames behind this process's pages. */
export const needsFrames = (context: TestContext) => need(context, 'pagemap frames')
/** For tests that serve faults which KVM takes on behalf of a guest. */
export const needsPaging = (context: TestContext) => need(context, 'userfaultfd')
/** For tests that trace. */
export const needsTracepoints = (context: TestContext) => need(context, 'tracefs', 'tracepoints by perf')

/** For tests that become another user, mount, or write to /proc/sys. */
export function needsRoot(context: TestContext, what: string): void {
  if (process.getuid?.() !== 0) skip(context, `needs root, to ${what}`)
}
