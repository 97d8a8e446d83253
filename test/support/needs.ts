/** What a test needs of the host: where it is not there, the test is skipped, and the reason is doctor's. */
import { diagnose } from 'node-kvm'
import type { TestContext } from 'vitest'
import { skip } from './skip.js'

const { findings, ok } = diagnose()

/** For what a file prepares for all its tests: a hook cannot skip them. */
export const canRunVms = ok

function need(context: TestContext, name: string): void {
  const finding = findings.find((each) => each.name === name)
  if (finding === undefined) throw new Error(`doctor has no finding '${name}'`)
  if (!finding.ok) skip(context, `${name}: ${finding.detail}${finding.remedy ? `; ${finding.remedy}` : ''}`)
}

/** To create VMs and run them. */
export const needsKvm = (context: TestContext) => need(context, '/dev/kvm')
/** To see the frames behind this process's pages. */
export const needsFrames = (context: TestContext) => need(context, 'pagemap frames')
/** To serve faults that KVM takes for a guest. */
export const needsPaging = (context: TestContext) => need(context, 'userfaultfd')

/** To trace. */
export function needsTracepoints(context: TestContext): void {
  need(context, 'tracefs')
  need(context, 'tracepoints by perf')
}

/** To become another user, mount, or write to /proc/sys. */
export function needsRoot(context: TestContext, what: string): void {
  if (process.getuid?.() !== 0) skip(context, `needs root, to ${what}`)
}
