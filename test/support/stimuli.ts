// The things that can be done to guest memory, and what KVM must then report: the rows of docs/observing.md, and what must hold for each.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { KiB, KvmError, Mapping, type Memslot, type MemslotOptions, MiB, type Vm } from 'node-kvm'
import type { Guest } from 'node-kvm/testing'
import { patience } from './patience.js'

/** A slot of the size that the stimulus needs; the guest touches `pages` of it. */
export interface Place {
  vm: Vm
  guest: Guest
  mapping: Mapping
  slot: Memslot
  gpa: number
  /** The file behind `mapping`, if there is one. */
  path: string
}

/** Kinds of events, or kinds with what they did; see {@link tally}. */
type Expected = readonly string[]
export interface Stimulus {
  name: string
  /** The number of the slot's pages that the guest touches; 4 if absent. */
  pages?: number
  size?: number
  memory?(size: number, folder: string): Mapping
  slot?: Partial<MemslotOptions>
  /** How the guest touched the pages before; if absent, it did not. */
  before?: 'read' | 'write'
  /** Does something else before. */
  prepare?(place: Place): void
  act(place: Place): void | Promise<void>
  /** The guest's access afterwards. */
  after?: 'read' | 'write'
  /**
   * Events that must be seen at once, and that must not; then the same for the guest's access afterwards. `tdp`: only where KVM reports each entry.
   */
  has?: Expected
  hasNot?: Expected
  tdp?: Expected
  next?: Expected
  nextNot?: Expected
  nextTdp?: Expected
}

/** This is clear of the guest's code. Everything that a stimulus does lies in the 256 MiB from here on. */
export const base = 0x5000_0000
export const room = 256 * MiB
const huge = 2 * MiB
const anonymous = (size: number) => Mapping.anonymous(size, { hugePages: false })
const filled = (size: number) => {
  const mapping = anonymous(size)
  mapping.fill(7)
  return mapping
}
const hugePages = (size: number) => Mapping.anonymous(size, { hugePages: true })
const onTmpfs = (size: number, folder: string) => {
  const path = join(folder, 'memory')
  writeFileSync(path, new Uint8Array(size))
  return Mapping.file(path, size, { shared: true })
}

/** Sets files to values while `work` is done, and then restores them. */
async function withSettings(settings: Record<string, string>, work: () => Promise<void>): Promise<void> {
  const before = Object.keys(settings).map((path): [string, string] => {
    if (!existsSync(path)) throw new Impossible(`this kernel has no ${path}`)
    return [path, /\[(\w+)\]/.exec(readFileSync(path, 'utf8'))?.[1] ?? readFileSync(path, 'utf8').trim()]
  })
  try {
    for (const [path, value] of Object.entries(settings)) writeFileSync(path, value)
    await work()
  } finally {
    for (const [path, value] of before.reverse()) writeFileSync(path, value)
  }
}

/** Says why this host cannot do it. */
export class Impossible extends Error {}

const ksm = '/sys/kernel/mm/ksm'
const mergedHere = () => Number(readFileSync('/proc/self/ksm_merging_pages', 'utf8'))
async function merge({ mapping }: Place): Promise<void> {
  await withSettings({ [`${ksm}/sleep_millisecs`]: '0', [`${ksm}/pages_to_scan`]: '1000', [`${ksm}/run`]: '1' }, async () => {
    mapping.advise('mergeable')
    const end = Date.now() + patience
    while (mergedHere() < 4) {
      if (Date.now() > end) throw new Impossible('ksmd merged nothing within 30 s')
      await sleep(20)
    }
  })
}

/** MADV_COLLAPSE may refuse memory that is too scattered. */
function collapse({ mapping }: Place): void {
  mapping.advise('hugepage')
  try {
    mapping.advise('collapse', 0, huge)
  } catch (error) {
    if (error instanceof KvmError) throw new Impossible(`MADV_COLLAPSE: ${error['errno']}`)
    throw error
  }
}

/** Makes holes everywhere, so that there is something to compact. */
function compact({ mapping, guest, gpa }: Place): void {
  for (let offset = 0; offset < mapping.size; offset += 8 * KiB) mapping.advise('dontneed', offset, 4 * KiB)
  guest.touch(gpa + 4 * KiB, 1, 'read')
  writeFileSync('/proc/sys/vm/compact_memory', '1')
}

/** The stimuli, in the order of the document. */
export const stimuli: readonly Stimulus[] = [
  {
    name: 'first read',
    act: ({ guest, gpa }) => void guest.touch(gpa, 4, 'read'),
    has: ['spte-set'],
    tdp: ['violation'],
    hasNot: ['notifier-unmap']
  },
  { name: 'first write', act: ({ guest, gpa }) => void guest.touch(gpa, 4, 'write', 1), has: ['spte-set'], tdp: ['violation'] },
  {
    name: 'a write after a read: copy on write',
    before: 'read',
    act: ({ guest, gpa }) => void guest.touch(gpa, 4, 'write', 1),
    has: ['notifier-unmap', 'spte-set'],
    tdp: ['violation', 'spte-drop']
  },
  {
    name: 'a write by the host',
    before: 'write',
    act: ({ mapping }) => mapping.fill(3, 0, 16 * KiB),
    hasNot: ['notifier-unmap', 'spte-drop'],
    after: 'read',
    nextNot: ['violation', 'spte-set']
  },
  {
    name: 'MADV_DONTNEED',
    before: 'write',
    act: ({ mapping }) => mapping.advise('dontneed', 0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'MADV_FREE',
    before: 'write',
    act: ({ mapping }) => mapping.advise('free', 0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'MADV_COLD',
    before: 'write',
    act: ({ mapping }) => mapping.advise('cold', 0, 16 * KiB),
    hasNot: ['notifier-unmap'],
    after: 'write',
    nextNot: ['violation', 'spte-set']
  },
  {
    name: 'mremap of other pages over it',
    before: 'write',
    act: ({ mapping }) => mapping.remap(0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'mmap(MAP_FIXED) over it',
    memory: onTmpfs,
    before: 'write',
    act: ({ mapping }) => mapping.remap(0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'mprotect(PROT_READ)',
    before: 'write',
    act: ({ mapping }) => mapping.protect('r', 0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'read',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'mprotect(PROT_NONE), and back',
    before: 'write',
    act({ mapping }) {
      mapping.protect('none', 0, 16 * KiB)
      mapping.protect('rw', 0, 16 * KiB)
    },
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'fork',
    before: 'write',
    act: () => void spawnSync('true'),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'KSM merges the pages',
    memory: filled,
    before: 'read',
    act: merge,
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['notifier-unmap', 'spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'first write, transparent huge page',
    memory: hugePages,
    size: 2 * huge,
    pages: 512,
    act: ({ guest, gpa }) => void guest.touch(gpa, 512, 'write', 1),
    has: ['spte-set level 2'],
    tdp: ['violation']
  },
  {
    name: 'MADV_DONTNEED of one page of a huge one',
    memory: hugePages,
    size: 2 * huge,
    pages: 512,
    before: 'write',
    act: ({ mapping }) => mapping.advise('dontneed', 20 * KiB, 4 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop level 2'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'MADV_COLLAPSE',
    size: 2 * huge,
    pages: 512,
    before: 'write',
    act: collapse,
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set level 2'],
    nextTdp: ['violation']
  },
  { name: 'memory compaction', size: 4 * MiB, pages: 1024, before: 'write', act: compact, after: 'read' },
  {
    name: 'PUNCH_HOLE in a memfd',
    memory: (size) => Mapping.memfd(size),
    before: 'write',
    act: ({ mapping }) => mapping.punchHole(0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'MADV_REMOVE in a memfd',
    memory: (size) => Mapping.memfd(size),
    before: 'write',
    act: ({ mapping }) => mapping.advise('remove', 0, 16 * KiB),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'ftruncate to nothing, and back',
    memory: onTmpfs,
    before: 'write',
    act({ mapping, path }) {
      truncateSync(path, 0)
      truncateSync(path, mapping.size)
    },
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: '/proc/self/clear_refs',
    before: 'write',
    act: () => writeFileSync('/proc/self/clear_refs', '4'),
    has: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'another slot created',
    before: 'write',
    act: ({ vm, gpa, mapping }) => void vm.memslots.create({ gpa: gpa + 64 * MiB, mapping }),
    has: ['memslot create'],
    hasNot: ['zap-all', 'notifier-unmap', 'spte-drop'],
    after: 'write',
    nextNot: ['violation', 'spte-set']
  },
  {
    name: 'the slot moved',
    before: 'write',
    act: ({ slot, gpa }) => slot.move(gpa + 32 * MiB),
    has: ['memslot move', 'zap-all'],
    hasNot: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['spte-set'],
    nextTdp: ['violation']
  },
  {
    name: 'the slot deleted',
    before: 'write',
    act: ({ slot }) => slot.delete(),
    has: ['memslot delete', 'zap-all'],
    hasNot: ['notifier-unmap'],
    tdp: ['spte-drop'],
    after: 'write',
    next: ['mmio write']
  },
  {
    name: 'dirty logging on',
    before: 'write',
    act: ({ slot }) => slot.setFlags({ logDirty: true }),
    has: ['memslot flags'],
    hasNot: ['zap-all', 'notifier-unmap'],
    after: 'write'
  },
  {
    name: 'the dirty log read',
    slot: { logDirty: true },
    before: 'write',
    act: ({ slot }) => void slot.dirtyPages(),
    hasNot: ['zap-all', 'notifier-unmap'],
    after: 'write'
  },
  {
    name: 'dirty logging off',
    slot: { logDirty: true },
    before: 'write',
    act: ({ slot }) => slot.setFlags({ logDirty: false }),
    has: ['memslot flags'],
    hasNot: ['zap-all', 'notifier-unmap'],
    after: 'write'
  },
  {
    name: 'a write to a READONLY slot',
    slot: { readonly: true },
    before: 'read',
    act: ({ guest, gpa }) => void guest.touch(gpa, 4, 'write', 1),
    has: ['mmio write'],
    hasNot: ['notifier-unmap']
  },
  {
    name: 'a write where no slot is',
    act: ({ guest, gpa }) => void guest.touch(gpa + 128 * MiB, 4, 'write', 1),
    has: ['mmio write'],
    hasNot: ['notifier-unmap']
  },
  {
    name: 'the same once more',
    prepare: ({ guest, gpa }) => void guest.touch(gpa + 128 * MiB, 4, 'write', 1),
    act: ({ guest, gpa }) => void guest.touch(gpa + 128 * MiB, 4, 'write', 1),
    has: ['mmio write'],
    hasNot: ['notifier-unmap', 'spte-set MMIO']
  }
]

/** The folder is on tmpfs if possible, because the pages of its files can be given back. */
export const makeFolder = () => mkdtempSync(existsSync('/dev/shm') ? '/dev/shm/node-kvm-' : '/tmp/node-kvm-')
export const removeFolder = (folder: string) => rmSync(folder, { recursive: true, force: true })
export const defaultMemory = anonymous
