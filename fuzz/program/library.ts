/** The library under test: the build of this checkout, or of another one. */
import { readFileSync } from 'node:fs'
import type * as Library from 'node-kvm'
import type * as Observe from 'node-kvm/observe'
import type * as Testing from 'node-kvm/testing'
import type * as Walkthrough from 'node-kvm/walkthrough'

export type * as Library from 'node-kvm'

/** The folder of another build's package, as a URL that ends in a slash. */
const other = process.env['NODE_KVM_FUZZ_PACKAGE']
const exported = other && (JSON.parse(readFileSync(new URL('package.json', other), 'utf8')).exports as Record<string, { default?: string }>)

/** The exports of a door. Another build may lack the door; then there are none. */
async function open<Door>(name: string): Promise<Door> {
  if (!exported) return (await import(name)) as Door
  const path = exported[name.replace('node-kvm', '.')]?.default
  return (path === undefined ? {} : await import(new URL(path, other).href)) as Door
}

const core = await open<typeof Library>('node-kvm')
const observe = await open<typeof Observe>('node-kvm/observe')
const testing = await open<typeof Testing>('node-kvm/testing')
const walkthrough = await open<typeof Walkthrough>('node-kvm/walkthrough')

/** The exports of each door, by name. */
export const doors: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'node-kvm': core,
  'node-kvm/observe': observe,
  'node-kvm/testing': testing,
  'node-kvm/walkthrough': walkthrough
}

export const { capabilities, GiB, KiB, Kvm, KvmError, longModeTablesSize, Mapping, Memslot, MiB, Vm } = core
export const { describeEvent, diff, hostVms, hpaToGpa, hvaToGpa, mirror, readPagemap, summarize, tables, timeline, trace, translate } = observe
export const { assemble, Guest } = testing

/** Everything that the package exports, by name. */
export const everything: Readonly<Record<string, unknown>> = Object.assign({}, ...Object.values(doors))
