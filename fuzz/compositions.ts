/** Commands that stand for several calls, that use the ledger of guests, or that order Workers. */
import fc from 'fast-check'
import { type Arguments, oneOf } from './arguments.js'
import type { Command, Fault } from './sequence.js'

export type Commands = fc.Arbitrary<readonly Command[]>
export type Weighted = { weight: number; arbitrary: Commands }

/** The commands that callbacks run. */
export interface Bodies {
  /** The commands of a transaction's callback. */
  transaction: Commands
  /** The commands of a handler for a guest's writes. */
  writes: Commands
}

export const index = fc.nat(5)
export const withFault = (fault: Fault | undefined) => (fault ? { fault } : {})
export const plain = (...text: string[]): Command => ({ text, how: 'plain' })
export const always = (...commands: Command[]): Commands => fc.constant(commands)
export const every = (weighted: readonly Weighted[]): Commands => fc.oneof(...weighted)
const awaited = (...text: string[]): Command => ({ text, how: 'awaited' })
const makesVcpu = (vm: number): Command => ({ text: [`@vm:${vm}.createVcpu()`], how: 'call', makes: 'vcpu' })

/** A VM with memory at 0. */
export const machine = always(
  { text: ['Kvm.open().createVm()'], how: 'call', makes: 'vm' },
  { text: ['Mapping.anonymous(65536)'], how: 'call', makes: 'mapping' },
  { text: ['@vm:last.memslots.create({ gpa: 0, mapping: @mapping:last })'], how: 'call', makes: 'slot' }
)

const places = fc.constantFrom('0x10000', '0x10000', '0x20000', '0x30000', '0x1000')

/** Memory that guests touch, and whose pages come when they are touched. */
function servedMemory(a: Arguments): Commands {
  const native = fc.constant(['{ content: new Uint8Array(4096).fill(7) }'] as const)
  const origin = fc.oneof({ weight: 3, arbitrary: a.pageContent }, { weight: 1, arbitrary: native })
  return fc.tuple(index, places, origin, fc.constantFrom('anonymous', 'anonymous', 'memfd')).map(([vm, gpa, served, kind]): readonly Command[] => [
    { text: [`Mapping.${kind}(65536)`], how: 'call', makes: 'mapping' },
    { text: ['@mapping:last.onMissing(', ...served, ')'], how: 'call', makes: 'paging', around: ['', '; disturb(@mapping:last)'] },
    { text: [`@vm:${vm}.memslots.create({ gpa: ${gpa}, mapping: @mapping:last })`], how: 'call', makes: 'slot' }
  ])
}

/** A guest, which may be started at once. */
function guest(a: Arguments): Commands {
  const hows = fc.constantFrom('spin', 'read', 'read', 'write', 'outs', 'outs', 'count', 'halt')
  const handlers = a.handler('exit', 'return undefined')
  return fc
    .tuple(index, hows, places, fc.option(handlers, { nil: undefined }), fc.boolean())
    .map(([vm, how, at, handler, blocks]): readonly Command[] => [
      makesVcpu(vm),
      plain(`run(@vcpu:last, '${how}', ${at})`),
      ...(handler
        ? [
            {
              text: ["@vcpu:last.start({ 'io-out': ", `${handler[0]} hear(@vcpu:last, exit); `, ...handler.slice(1), ' })'],
              how: 'call',
              around: ['hear(@vcpu:last, ', ')']
            } as const,
            // This gives the guest enough time to reach the access for which it waits for this thread.
            ...(blocks ? [plain('block(30)')] : [])
          ]
        : [])
    ])
}

/** A VM's writes to ports that are queued for handlers, which may run vCPUs. */
function coalesced(body: Commands, faults: fc.Arbitrary<Fault | undefined>): Commands {
  const runs = index.map((vcpu): readonly Command[] => [
    { text: [`@vcpu:${vcpu}.run({ timeoutMs: 10 })`], how: 'call', around: [`hear(@vcpu:${vcpu}, `, ')'] }
  ])
  const writes = fc.oneof({ weight: 2, arbitrary: body }, { weight: 1, arbitrary: runs })
  const ends = fc.constantFrom('', '', '', '', 'throw planted()')
  const zone = fc.tuple(fc.constantFrom('0x10', '0x11', '0x12'), fc.constantFrom(1, 1, 3), writes, ends, faults)
  // There are several ranges, because writes to one of them come in the same turn as writes to the others.
  return fc.tuple(index, fc.array(zone, { minLength: 1, maxLength: 3 })).map(([vm, zones]) =>
    zones.map(
      ([port, size, body, end, fault]): Command => ({
        text: [
          `@vm:${vm}.coalesce({ port: ${port}, size: ${size} }, (writes) => { hearRange(@vm:${vm}, writes, ${port}, ${size}); `,
          body,
          `${end} })`
        ],
        how: 'call',
        makes: 'zone',
        ...withFault(fault)
      })
    )
  )
}

function ioeventfds(a: Arguments, faults: fc.Arbitrary<Fault | undefined>): Weighted[] {
  const anyhow = a.options({}, { port: oneOf('0x30'), gpa: a.gpa, size: a.small, datamatch: a.big })
  return [
    {
      weight: 6,
      arbitrary: fc.tuple(index, fc.constantFrom('0x10', '0x11', '0x12', '0x20'), faults).map(([vm, port, fault]) => [
        {
          text: [`@vm:${vm}.ioeventfd({ port: ${port}, size: 1 })`],
          how: 'call',
          makes: 'ioeventfd',
          around: [`swallow(@vm:${vm}, ${port}, `, ')'],
          ...withFault(fault)
        }
      ])
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(index, anyhow)
        .map(([vm, options]) => [{ text: [`@vm:${vm}.ioeventfd(`, ...options, ')'], how: 'call', makes: 'ioeventfd' }])
    }
  ]
}

/** A trace from which one iterator, or two, ask for all events. */
const followedTrace: Commands = fc
  .tuple(index, fc.integer({ min: 1, max: 2 }))
  .map(([vm, times]): readonly Command[] => [
    { text: [`trace(@vm:${vm}, { ringSize: 4096 })`], how: 'call', makes: 'trace' },
    ...Array.from({ length: times }, () => plain('iterate(@trace:last)'))
  ])

/** Copies to and from memory that nothing else touches. */
const copies: Commands = fc
  .tuple(index, fc.constantFrom('0', '4096'), fc.boolean())
  .map(([value, offset, isLive]) => [
    { text: ['Mapping.anonymous(65536)'], how: 'call', makes: 'mapping' },
    plain(`judgeCopy(@mapping:last, ${offset}, ${isLive ? 'live(@mapping:last)' : `new Uint8Array(100).fill(${value + 1})`})`)
  ])

/** Compositions that do not wait for the event loop. */
export function compositionsOf(a: Arguments, bodies: Bodies, faults: fc.Arbitrary<Fault | undefined>): Weighted[] {
  // A lost VM is disturbed first, because no handler can tell whose writes it heard.
  // Page services are not lost: a service's handler lives until close() with everything that it names, and in these programs it names everything.
  const lost = fc.constantFrom('mapping', 'vm', 'vcpu', 'log', 'slot', 'trace', 'ioeventfd')
  return [
    // These are few: with many VMs, the calls of a program rarely affect each other.
    { weight: 4, arbitrary: machine },
    { weight: 16, arbitrary: index.map((vm) => [makesVcpu(vm), plain('emit(@vcpu:last)')]) },
    { weight: 3, arbitrary: followedTrace },
    { weight: 4, arbitrary: index.map((vcpu) => [plain(`emit(@vcpu:${vcpu})`)]) },
    { weight: 16, arbitrary: guest(a) },
    { weight: 10, arbitrary: servedMemory(a) },
    {
      weight: 10,
      arbitrary: fc
        .tuple(index, bodies.transaction)
        .map(([vm, body]) => [
          { text: [`@vm:${vm}.memslots.transaction((tx) => { @new:transaction = tx`, body, '})'], how: 'call', around: ['', `; disturb(@vm:${vm})`] }
        ])
    },
    ...ioeventfds(a, faults),
    { weight: 10, arbitrary: coalesced(bodies.writes, faults) },
    { weight: 3, arbitrary: copies },
    { weight: 2, arbitrary: index.map((on) => [plain(`judgeTable(@vm:${on}, 'in between')`)]) },
    { weight: 2, arbitrary: lost.chain((kind) => index.map((on) => [plain(`disturb(@${kind}:${on}); @${kind}:${on} = undefined`)])) },
    { weight: 2, arbitrary: always(plain('globalThis.gc?.()')) },
    { weight: 6, arbitrary: always(plain('block(50)')) }
  ]
}

const order = (how: 'plain' | 'awaited', head: string, body: readonly Command[], tail: string): Command => ({
  text: [head, body, tail],
  how,
  worker: true
})

/** Tells a Worker to do something, which is done before the next step here. */
export const orders = (inner: Commands, most: number): Commands =>
  fc
    .tuple(index, fc.array(inner, { minLength: 1, maxLength: most }))
    .map(([crew, body]) => [order('plain', `tell(@crew:${crew}, `, body.flat(), ')')])

// The Worker looks up what it knows of the table that it got.
const lookups = ['0', '0x10000'].map((gpa): Command => ({ text: [`@vm:0.memslots.lookup(${gpa})`], how: 'call', makes: 'slot' }))

/** A Worker with the same VM, which gets its first order at once. */
const withWorker = (vm: string, body: readonly Command[]): readonly Command[] => [
  { text: [`startWorker(@vm:${vm}, workerFile); disturb(@vm:${vm})`], how: 'awaited', makes: 'crew' },
  order('plain', 'tell(@crew:last, ', [...lookups, ...body], ')')
]

/** The beginning of a program: a VM with memory, and perhaps a Worker that has the VM, too. */
export const beginnings: Commands = fc.oneof(
  { weight: 1, arbitrary: always() },
  { weight: 4, arbitrary: machine },
  { weight: 2, arbitrary: machine.map((all) => [...all, ...withWorker('last', [])]) }
)

/** Compositions that wait, or start Workers. They stand only at the top of a program, where it may await. */
export function topOf(inner: Commands): Weighted[] {
  const told = fc.array(inner, { maxLength: 5 }).map((all) => all.flat())
  return [
    { weight: 16, arbitrary: always(awaited('turn()')) },
    { weight: 4, arbitrary: always(awaited('sleep(20)')) },
    {
      weight: 6,
      arbitrary: fc.tuple(index, told).map(([vm, body]) => withWorker(`${vm}`, body))
    },
    { weight: 3, arbitrary: orders(inner, 5) },
    { weight: 2, arbitrary: fc.tuple(index, told).map(([crew, body]) => [order('plain', `tell(@crew:${crew}, `, body, ', false)')]) },
    {
      weight: 2,
      arbitrary: fc.tuple(index, told, fc.nat(5)).map(([crew, body, at]) => [order('awaited', `endAt(@crew:${crew}, `, body, `, ${at})`)])
    },
    { weight: 2, arbitrary: index.map((crew) => [awaited(`end(@crew:${crew})`)]) },
    { weight: 1, arbitrary: always(awaited('crowd(14)')) },
    { weight: 3, arbitrary: fc.constantFrom('trace', 'ioeventfd').chain((kind) => index.map((on) => [plain(`iterate(@${kind}:${on})`)])) },
    {
      weight: 1,
      arbitrary: fc.tuple(index, fc.constantFrom('protect', 'advise', 'remap')).map(([on, way]) => [plain(`stripe(@huge:${on}, '${way}')`)])
    }
  ]
}
