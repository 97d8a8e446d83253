import { capabilities, type DirtyLogMode, type DirtyRange, KiB, type Kvm, MiB, type Vm } from 'node-kvm'
import type { TestContext } from 'vitest'
import { skip } from './skip.js'

export const pageSize = 4 * KiB
export const gpa = 0x20_0000
export const modes: DirtyLogMode[] = ['bitmap', 'manual', 'ring']

/** Skips the test where the kernel lacks the mode. */
export function needsMode(context: TestContext, kvm: Kvm, mode: DirtyLogMode): void {
  if (mode === 'manual' && kvm.capabilities.check(capabilities.MANUAL_DIRTY_LOG_PROTECT2) === 0)
    skip(context, 'this kernel lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2')
  if (
    mode === 'ring' &&
    kvm.capabilities.check(capabilities.DIRTY_LOG_RING) === 0 &&
    kvm.capabilities.check(capabilities.DIRTY_LOG_RING_ACQ_REL) === 0
  )
    skip(context, 'this kernel lacks KVM_CAP_DIRTY_LOG_RING')
}

/** The numbers of the pages in the ranges, from `gpa` on. */
export const pagesOf = (ranges: DirtyRange[], from = gpa, to = gpa + 16 * MiB) =>
  ranges.flatMap((range) =>
    range.gpa < from || range.gpa >= to ? [] : Array.from({ length: range.size / pageSize }, (_, page) => (range.gpa - from) / pageSize + page)
  )

/** The pages whose first word differs from before. */
export const changedPages = (before: number[], words: number[]) => words.flatMap((word, page) => (word === before[page] ? [] : [page]))

export function copyInto(copy: Uint8Array, source: Vm, ranges: DirtyRange[]): void {
  for (const range of ranges)
    if (range.gpa >= gpa && range.gpa < gpa + copy.length) copy.set(source.memory.read(range.gpa, range.size), range.gpa - gpa)
}
