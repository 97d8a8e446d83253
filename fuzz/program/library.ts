/** The library that is examined: the build of this checkout, or of another one. */
import type * as Library from 'node-kvm'

export type * as Library from 'node-kvm'

const library: typeof Library = await import(process.env['NODE_KVM_FUZZ_PACKAGE'] ?? 'node-kvm')

export const { assemble, capabilities, describeEvent, diff, GiB, Guest, hpaToGpa, hvaToGpa, KiB, Kvm, KvmError, longModeTablesSize } = library
export const { machines, Mapping, Memslot, MiB, readPagemap, summarize, timeline, Vm } = library

/** Everything that it exports, by name. */
export const everything: Readonly<Record<string, unknown>> = { ...library }
