/** The commands of which programs are made, and how often each comes. */
import fc from 'fast-check'
import { type Call, callsOf, classes } from './api.js'
import { type Arguments, argumentsOf } from './arguments.js'
import { always, beginnings, type Commands, compositionsOf, every, index, orders, plain, topOf, type Weighted, withFault } from './compositions.js'
import type { Command, Fault, Kind, Text } from './sequence.js'

/** Whether the package under test has a class, method or function of this name: `Vm.share`, `hostVms`. */
export type Has = (name: string) => boolean

/** The C functions that the add-on calls, each with the errors with which it may fail. */
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
  { weight: 1, arbitrary: fc.constant<Fault>({ lack: 'file-size', bytes: 2 ** 26 }) },
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.constantFrom(...Object.entries(failing)), fc.integer({ min: 1, max: 4 }), index)
      .map(([[name, errnos], nth, which]): Fault => ({ lack: 'call', name, nth, errno: errnos[which % errnos.length] as string }))
  }
)

const join = (texts: Text[]): Text => texts.flatMap((text, at) => (at === 0 ? text : [', ', ...text]))

/** The expression of a call on `self`. */
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

/** Puts the object in the place of `@self`, also in the commands of a callback. */
const withSelf = (commands: readonly Command[], put: (text: string) => string): readonly Command[] =>
  commands.map((command) => ({ ...command, text: command.text.map((piece) => (typeof piece === 'string' ? put(piece) : withSelf(piece, put))) }))

/** Calls a method of one kind on an object of another: `Vm.prototype.close.call(mapping0)`. */
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

/** The calls that affect others most; callbacks make them more often. */
const lively = /^(run|start|stop|kick|close|drain|memslots\.create|move|rebind|delete|resize|onMissing|populate)$/

interface Known {
  a: Arguments
  all: Weighted[]
  lively: Weighted[]
  /** The methods of memslots. */
  slots: Weighted[]
  /** The methods of transactions. */
  staged: Weighted[]
}

/** The calls that a package has, with callbacks that do `body`. */
function callsWith(body: Commands, has: Has): Known {
  const a = argumentsOf(body)
  const isThere = ({ of, name }: Call) => {
    return of === undefined || classes[of] === undefined || has(`${classes[of]}.${name.split(' ').at(-1)}`)
  }
  const known = callsOf(a).filter(isThere)
  const weigh = (calls: Call[], times: number) => calls.map((call) => ({ weight: (call.weight ?? 1) * times, arbitrary: callOf(call) }))
  const borrowable = known.filter(({ of, name }) => of !== undefined && classes[of] !== undefined && !name.includes('.'))
  const onOthers = fc.constantFrom(...borrowable).chain((call) => onOther(call, ['vm', 'vcpu', 'mapping', 'slot', 'kvm', 'paging']))
  return {
    a,
    all: [...weigh(known, 1), { weight: 2, arbitrary: onOthers }],
    lively: weigh(
      known.filter(({ name }) => lively.test(name)),
      1
    ),
    slots: weigh(
      known.filter(({ of }) => of === 'slot'),
      1
    ),
    staged: weigh(
      known.filter(({ of }) => of === 'transaction'),
      3
    )
  }
}

/** Everything that needs no await: callbacks do `body`, and transactions their own commands. */
function level({ a, all, lively, slots, staged }: Known, body: Commands): { any: Commands; callback: Commands } {
  // A Worker may change the slots meanwhile, too.
  const meanwhile = { weight: 6, arbitrary: orders(every(slots), 2) }
  const inTransaction = fc.array(every([...staged, ...slots, meanwhile, { weight: 6, arbitrary: body }]), { maxLength: 4 }).map((list) => list.flat())
  const commands = [...all, ...compositionsOf(a, { transaction: inTransaction, writes: body }, faults)]
  const callback = fc.array(every([...commands, ...lively, ...lively, ...lively]), { maxLength: 3 }).map((list) => list.flat())
  return { any: every(commands), callback }
}

/** Programs: lists of items, each of which may consist of several commands. */
export function programs(has: Has): fc.Arbitrary<readonly (readonly Command[])[]> {
  const nothing: Commands = fc.constant([])
  const innermost = level(callsWith(nothing, has), nothing)
  const body = fc.oneof(
    { weight: 20, arbitrary: nothing },
    { weight: 16, arbitrary: innermost.callback },
    { weight: 3, arbitrary: orders(innermost.any, 3) },
    { weight: 1, arbitrary: always(plain('leave()')) }
  )
  const outer = callsWith(body, has)
  const { any } = level(outer, body)
  const rest = fc.array(fc.oneof({ weight: 8, arbitrary: any }, { weight: 1, arbitrary: every(topOf(any)) }), { maxLength: 40, size: 'max' })
  return fc.tuple(beginnings, rest).map(([first, all]) => [first, ...all])
}
