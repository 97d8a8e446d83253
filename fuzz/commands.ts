/** What programs are made of, and how often. */
import fc from 'fast-check'
import { type Call, callsOf, classes } from './api.js'
import { type Arguments, argumentsOf, oneOf } from './arguments.js'
import type { Command, Fault, Kind, Text } from './sequence.js'

/** Whether the package that is examined has it: `Vm.share`, `machines`. */
export type Has = (name: string) => boolean
type Weighted = { weight: number; arbitrary: fc.Arbitrary<readonly Command[]> }

const index = fc.nat(5)

/** C functions that the add-on calls, by which errno they may fail. */
const failing = {
  pthread_create: ['EAGAIN'],
  mmap: ['ENOMEM', 'EAGAIN'],
  open: ['EMFILE', 'ENOENT', 'EACCES'],
  ioctl: ['EINVAL', 'ENOMEM', 'EINTR', 'EFAULT', 'EBUSY', 'ENOSPC'],
  eventfd: ['EMFILE'],
  socketpair: ['EMFILE', 'ENFILE'],
  epoll_create1: ['EMFILE'],
  epoll_ctl: ['ENOSPC', 'ENOMEM'],
  timer_create: ['EAGAIN'],
  memfd_create: ['EMFILE', 'ENOMEM'],
  ftruncate: ['EFBIG', 'ENOSPC'],
  fallocate: ['EOPNOTSUPP', 'ENOSPC'],
  mprotect: ['ENOMEM'],
  madvise: ['ENOMEM', 'EINVAL', 'EAGAIN'],
  mincore: ['ENOMEM', 'EAGAIN'],
  mremap: ['ENOMEM'],
  pread: ['EIO'],
  fopen: ['EMFILE'],
  syscall: ['EMFILE', 'EPERM', 'ENOSYS', 'ENOMEM'],
  malloc: ['ENOMEM']
}

const faults: fc.Arbitrary<Fault | undefined> = fc.oneof(
  { weight: 80, arbitrary: fc.constant(undefined) },
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 4 }).map((free): Fault => ({ lack: 'descriptors', free })) },
  { weight: 1, arbitrary: fc.constant<Fault>({ lack: 'threads' }) },
  { weight: 1, arbitrary: fc.constantFrom(64, 256).map((mib): Fault => ({ lack: 'address-space', bytes: mib * 2 ** 20 })) },
  { weight: 1, arbitrary: fc.constant<Fault>({ lack: 'file-size', bytes: 65536 }) },
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.constantFrom(...Object.entries(failing)), fc.integer({ min: 1, max: 4 }), index)
      .map(([[name, errnos], nth, which]): Fault => ({ lack: 'call', name, nth, errno: errnos[which % errnos.length] as string }))
  }
)

const withFault = (fault: Fault | undefined) => (fault ? { fault } : {})
const join = (texts: Text[]): Text => texts.flatMap((text, at) => (at === 0 ? text : [', ', ...text]))

/** The expression of a call of `self`. */
function expressionOf({ name }: Call, self: string | undefined, given: Text): Text {
  const [verb, property] = name.split(' ') as [string, string | undefined]
  if (property === undefined) return [`${self === undefined ? '' : `${self}.`}${name}(`, ...given, ')']
  return verb === 'get' ? [`${self}.${property}`] : [`void (${self}.${property} = `, ...given, ')']
}

function callOf(call: Call): fc.Arbitrary<readonly Command[]> {
  return fc.tuple(index, fc.tuple(...(call.arguments ?? [])), faults).map(([on, given, fault]) => {
    const self = call.of && `@${call.of}:${on}`
    const put = (text: string) => text.replaceAll('@self', self ?? '')
    const text = expressionOf(call, self, join(given)).map((piece) => (typeof piece === 'string' ? put(piece) : withSelf(piece, put)))
    return [
      {
        text,
        how: 'call',
        ...(call.makes && { makes: call.makes }),
        ...(call.around && { around: call.around.map(put) as [string, string] }),
        ...withFault(fault)
      }
    ]
  })
}

/** What a callback does may name the object as well. */
const withSelf = (commands: readonly Command[], put: (text: string) => string): readonly Command[] =>
  commands.map((command) => ({ ...command, text: command.text.map((piece) => (typeof piece === 'string' ? put(piece) : withSelf(piece, put))) }))

/** A method of one kind, on an object of another: `Vm.prototype.close.call(mapping0)`. */
function onOther(call: Call, kinds: Kind[]): fc.Arbitrary<readonly Command[]> {
  const owner = classes[call.of as Kind] as string
  return fc.tuple(fc.constantFrom(...kinds), index, fc.tuple(...(call.arguments ?? [])), fc.nat(2)).map(([other, on, given, form]) => {
    const self = [`@${other}:${on}`, `Object.create(@${other}:${on})`, `new Proxy(@${other}:${on}, {})`][form] as string
    const [verb, property] = call.name.split(' ') as [string, string | undefined]
    const text: Text =
      property === undefined
        ? [`everything.${owner}.prototype.${verb}.call(`, ...join([[self], ...given]), ')']
        : [`Reflect.${verb}(everything.${owner}.prototype, '${property}', `, ...(verb === 'set' ? [...join(given), ', '] : []), `${self})`]
    return [{ text: text.map((piece) => (typeof piece === 'string' ? piece.replaceAll('@self', 'undefined') : piece)), how: 'other' }]
  })
}

const plain = (...text: string[]): Command => ({ text, how: 'plain' })
const awaited = (...text: string[]): Command => ({ text, how: 'awaited' })
const always = (...commands: Command[]) => fc.constant<readonly Command[]>(commands)

/** What is made of several calls, or takes the ledger. None waits for the event loop. */
function othersOf(a: Arguments): Weighted[] {
  const guests = fc.tuple(
    index,
    fc.constantFrom('spin', 'read', 'read', 'write', 'outs', 'outs', 'count', 'halt'),
    fc.constantFrom('0x10000', '0x20000', '0x30000', '0x1000')
  )
  const writes = a.handler('writes', 'return', 'return')
  return [
    {
      weight: 16,
      arbitrary: always(
        { text: ['Kvm.open().createVm()'], how: 'call', makes: 'vm' },
        { text: ['Mapping.anonymous(65536)'], how: 'call', makes: 'mapping' },
        { text: ['@vm:last.memslots.create({ gpa: 0, mapping: @mapping:last })'], how: 'call', makes: 'slot' }
      )
    },
    { weight: 10, arbitrary: index.map((vm) => [{ text: [`@vm:${vm}.createVcpu()`], how: 'call', makes: 'vcpu' }, plain('emit(@vcpu:last)')]) },
    { weight: 4, arbitrary: index.map((vcpu) => [plain(`emit(@vcpu:${vcpu})`)]) },
    {
      weight: 10,
      arbitrary: guests.map(([vm, how, at]) => [
        { text: [`@vm:${vm}.createVcpu()`], how: 'call', makes: 'vcpu' },
        plain(`run(@vcpu:last, '${how}', ${at})`)
      ])
    },
    {
      weight: 6,
      arbitrary: fc
        .tuple(index, a.body)
        .map(([vm, body]) => [
          { text: [`@vm:${vm}.memslots.transaction((tx) => { @new:transaction = tx`, body, '})'], how: 'call', around: ['', `; disturb(@vm:${vm})`] }
        ])
    },
    {
      weight: 6,
      arbitrary: fc.tuple(index, oneOf('0x10', '0x11', '0x12', '0x20'), faults).map(([vm, [port], fault]) => [
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
        .tuple(index, a.options({}, { port: oneOf('0x30'), gpa: a.gpa, size: a.small, datamatch: a.big }))
        .map(([vm, options]) => [{ text: [`@vm:${vm}.ioeventfd(`, ...options, ')'], how: 'call', makes: 'ioeventfd' }])
    },
    {
      weight: 6,
      arbitrary: fc
        .tuple(index, oneOf('0x10', '0x11', '0x12'), fc.constantFrom(1, 1, 3), writes, faults)
        .map(([vm, [port], size, [head, ...rest], fault]) => [
          {
            text: [`@vm:${vm}.coalesce({ port: ${port}, size: ${size} }, `, `${head} hearWrites(@vm:${vm}, writes); `, ...rest, ')'],
            how: 'call',
            makes: 'zone',
            ...withFault(fault)
          }
        ])
    },
    {
      weight: 3,
      arbitrary: fc
        .tuple(index, index, fc.constantFrom('0', '4096'), fc.boolean())
        .map(([on, value, offset, live]) => [
          plain(
            `judgeCopy(@mapping:${on}, ${offset}, ${live ? `live(@mapping:${on})` : `new Uint8Array(100).fill(${value + 1})`}); disturb(@mapping:${on})`
          )
        ])
    },
    { weight: 2, arbitrary: index.map((on) => [plain(`judgeTable(@vm:${on}, 'in between')`)]) },
    {
      weight: 2,
      arbitrary: fc
        .constantFrom('mapping', 'vm', 'vcpu', 'paging', 'log', 'slot', 'trace', 'ioeventfd')
        .chain((kind) => index.map((on) => [plain(`@${kind}:${on} = undefined`)]))
    },
    { weight: 2, arbitrary: always(plain('globalThis.gc?.()')) },
    { weight: 2, arbitrary: always(plain('block(50)')) }
  ]
}

/** What waits, or orders Workers: only at the top, where a program may await. */
function topOf(inner: fc.Arbitrary<readonly Command[]>): Weighted[] {
  const toldBody = fc.array(inner, { maxLength: 5 }).map((all) => all.flat())
  const order = (how: 'plain' | 'awaited', head: string, body: readonly Command[], tail: string): Command => ({
    text: [head, body, tail],
    how,
    worker: true
  })
  return [
    { weight: 16, arbitrary: always(awaited('turn()')) },
    { weight: 4, arbitrary: always(awaited('sleep(20)')) },
    {
      weight: 4,
      arbitrary: fc
        .tuple(index, toldBody)
        .map(([vm, body]) => [
          { text: [`startWorker(@vm:${vm}, workerFile); disturb(@vm:${vm})`], how: 'awaited', makes: 'crew' },
          order('plain', 'tell(@crew:last, ', body, ')')
        ])
    },
    { weight: 3, arbitrary: fc.tuple(index, toldBody).map(([crew, body]) => [order('plain', `tell(@crew:${crew}, `, body, ')')]) },
    { weight: 2, arbitrary: fc.tuple(index, toldBody).map(([crew, body]) => [order('plain', `tell(@crew:${crew}, `, body, ', false)')]) },
    {
      weight: 2,
      arbitrary: fc.tuple(index, toldBody, fc.nat(5)).map(([crew, body, at]) => [order('awaited', `endAt(@crew:${crew}, `, body, `, ${at})`)])
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

const every = (weighted: Weighted[]) => fc.oneof(...weighted)

/** An order for a Worker inside a callback: what it does there happens meanwhile. */
const ordersInside = (inner: fc.Arbitrary<readonly Command[]>): Weighted[] => [
  {
    weight: 20,
    arbitrary: fc
      .tuple(index, fc.array(inner, { minLength: 1, maxLength: 3 }))
      .map(([crew, body]) => [{ text: [`tell(@crew:${crew}, `, body.flat(), ')'], how: 'plain', worker: true }])
  }
]

function callsWith(body: fc.Arbitrary<readonly Command[]>, has: Has): { a: Arguments; calls: Weighted[] } {
  const a = argumentsOf(body)
  const known = callsOf(a).filter(
    ({ of, name }) =>
      has(of === undefined ? name : `${classes[of]}.${(name.split(' ').at(-1) as string).split('.')[0]}`) || of === undefined || !classes[of]
  )
  const borrowable = known.filter(({ of, name }) => of !== undefined && classes[of] !== undefined && !name.includes('.'))
  const calls = known.map((call) => ({ weight: (call.weight ?? 1) * 2, arbitrary: callOf(call) }))
  const other = fc.constantFrom(...borrowable).chain((call) => onOther(call, ['vm', 'vcpu', 'mapping', 'slot', 'kvm', 'paging']))
  return { a, calls: [...calls, { weight: 3, arbitrary: other }] }
}

/** Programs: lists of commands, each of which may stand for several. */
export function programs(has: Has): fc.Arbitrary<readonly (readonly Command[])[]> {
  const leaving: Weighted = { weight: 1, arbitrary: always(plain('leave()')) }
  const innermost = callsWith(fc.constant([]), has)
  const simple = every([...innermost.calls, ...othersOf(innermost.a)])
  const body = fc
    .array(every([...innermost.calls, ...othersOf(innermost.a), ...ordersInside(simple), leaving]), { maxLength: 3 })
    .map((all) => all.flat())
  const seldom = fc.oneof({ weight: 2, arbitrary: fc.constant<readonly Command[]>([]) }, { weight: 1, arbitrary: body })
  const outer = callsWith(seldom, has)
  const inner = every([...outer.calls, ...othersOf(outer.a)])
  const machine = fc.option(othersOf(outer.a)[0]?.arbitrary as fc.Arbitrary<readonly Command[]>, { nil: [], freq: 6 })
  const rest = fc.array(every([...outer.calls, ...othersOf(outer.a), ...topOf(inner)]), { maxLength: 40, size: 'max' })
  return fc.tuple(machine, rest).map(([first, all]) => [first, ...all])
}
