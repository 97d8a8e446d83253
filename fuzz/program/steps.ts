/** What programs do beside calling the library. */
import { setTimeout as later, setImmediate as nextTurn } from 'node:timers/promises'
import { attempt, follow, journal, progress } from './attempt.js'
import { ledgerOf } from './guests.js'
import type { Library } from './library.js'

/** The event loop goes round. */
export async function turn(): Promise<void> {
  progress()
  await nextTurn()
  await nextTurn()
}
export async function sleep(milliseconds: number): Promise<void> {
  progress()
  await later(milliseconds)
}
/** The event loop does not go round for a while, and vCPUs and Workers get on. */
export function block(milliseconds: number): void {
  progress()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}

/** Notes that the guest's writes to that port are no exits from now on. */
export function swallow<T>(vm: Library.Vm | undefined, port: number, source: T | undefined): T | undefined {
  if (vm && source !== undefined) ledgerOf(vm).swallowed.add(port)
  return source
}

/** Notes a page service: its handler may name its own mapping, and with that it is never lost. */
export function keep<T extends { close(): void }>(service: T | undefined): T | undefined {
  if (service) journal().kept.push(service)
  return service
}

/** Iterates over a source until its end. */
export function iterate(source: (AsyncIterable<unknown> & { close(): void }) | undefined): void {
  if (!source) return
  journal().kept.push(source)
  const all = async () => {
    for await (const _ of source) progress()
  }
  follow(all(), `for await (... of ${source.constructor.name})`)
}

/** Changes every other page, so that each is a mapping of its own in the kernel, until that is refused. */
export function stripe(mapping: Library.Mapping | undefined, way: 'protect' | 'advise' | 'remap'): void {
  const ways = {
    protect: (at: number) => mapping?.protect('r', at, 4096),
    advise: (at: number) => mapping?.advise('random', at, 4096),
    remap: (at: number) => mapping?.remap(at, 4096)
  }
  for (let page = 0; page < 2 ** 17 && mapping && !mapping.closed; page += 2)
    if (
      attempt(() => {
        ways[way](page * 4096)
        return true
      }) === undefined
    )
      return
}
