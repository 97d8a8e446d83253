/** What a test needs of the host: if the host lacks it, the test is skipped with the doctor's reason. */
import type { Finding } from 'node-kvm/observe'
import { inject, type TestContext } from 'vitest'
import './examine.js'
import { skip } from './skip.js'

const { findings, ok } = inject('diagnosis')

/** For the preparations of a file for all its tests: a hook cannot skip the tests. */
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

/** To create VMs and run them. */
export const needsKvm = (context: TestContext) => need(context, '/dev/kvm', 'guests')
/** To read the memslots that are in the kernel's memory. */
export const needsBpf = (context: TestContext) => need(context, 'BPF')
/** To see the frames behind this process's pages. */
export const needsFrames = (context: TestContext) => need(context, 'pagemap frames')
/** To serve faults that KVM takes on behalf of a guest. */
export const needsPaging = (context: TestContext) => need(context, 'userfaultfd')
/** To trace. */
export const needsTracepoints = (context: TestContext) => need(context, 'tracefs', 'tracepoints by perf')

/** To become another user, mount, or write to /proc/sys. */
export function needsRoot(context: TestContext, what: string): void {
  if (process.getuid?.() !== 0) skip(context, `needs root, to ${what}`)
}
