/** The steps of programs that are not calls of the library. */
import { setTimeout as later, setImmediate as nextTurn } from 'node:timers/promises'
import { attempt, follow, journal, progress } from './attempt.js'
import { ledgerOf } from './guests.js'
import type { Library } from './library.js'

/** Waits until the event loop has gone round. */
export async function turn(): Promise<void> {
  progress()
  await nextTurn()
  await nextTurn()
}
export async function sleep(milliseconds: number): Promise<void> {
  progress()
  await later(milliseconds)
}
/** Blocks the event loop for a while, in which vCPUs and Workers make progress. */
export function block(milliseconds: number): void {
  progress()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}

/** Notes that from now on the guest's writes to that port cause no exits. */
export function swallow<T>(vm: Library.Vm | undefined, port: number, source: T | undefined): T | undefined {
  if (vm && source !== undefined) ledgerOf(vm).swallowed.add(port)
  return source
}

/** Notes a page service. Its handler may name its own mapping, and then the service is never lost. */
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

/** Changes every other page, so that each becomes a separate mapping in the kernel, until that is refused. */
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
