/** Describes the public API: its calls, the objects on which they are made, and their arguments. */
import fc from 'fast-check'
import { type Arguments, oneOf, reference, type TextArbitrary } from './arguments.js'
import type { Kind } from './sequence.js'

export interface Call {
  /** The kind of object that has the method; absent for a function or a static method of that name. */
  of?: Kind
  /** `read` for a method, `memory.read` for a method of a facet, `get buffer` for a getter, `set label` for a setter. */
  name: string
  arguments?: TextArbitrary[]
  makes?: Kind
  weight?: number
  /** Text before and behind the attempt, in which `@self` stands for the object. */
  around?: [string, string]
}

const disturbs = (what = '@self'): [string, string] => ['', `; disturb(${what})`]
const undoes: [string, string] = ['undone(@self, () => ', '); disturb(@self)']
const hears: [string, string] = ['hear(@self, ', ')']

/** The class of each kind of object: a package has a method if its class has it. */
export const classes: Partial<Record<Kind, string>> = {
  kvm: 'Kvm',
  vm: 'Vm',
  vcpu: 'Vcpu',
  mapping: 'Mapping',
  huge: 'Mapping',
  slot: 'Memslot',
  transaction: 'MemslotTransaction',
  paging: 'DemandPaging',
  log: 'DirtyLog',
  irqfd: 'Irqfd',
  ioeventfd: 'IoEventfd',
  zone: 'CoalescedZone',
  statistics: 'Statistics',
  trace: 'Trace',
  mirror: 'Mirror',
  guest: 'Guest',
  memfd: 'GuestMemfd'
}

function mappingCalls(a: Arguments): Call[] {
  const protection = a.mostly(oneOf("'none'", "'r'", "'rw'", "'rw'", "'rx'", "'rwx'"))
  const advice = a.mostly(
    oneOf("'dontneed'", "'dontneed'", "'hugepage'", "'nohugepage'", "'remove'", "'cold'", "'pageout'", "'collapse'", "'random'")
  )
  const common = { populate: a.boolean, hugePages: a.boolean }
  const huge = oneOf('5 * GiB', '8 * GiB', '2 ** 40', '2 ** 42')
  const sources = fc.oneof(
    { weight: 4, arbitrary: a.pageContent },
    { weight: 2, arbitrary: a.options({ content: a.bytes }) },
    { weight: 1, arbitrary: a.options({ file: oneOf("'/proc/self/exe'", "'/nowhere'", "'/dev/null'", "'/'") }, { offset: a.offset }) },
    { weight: 1, arbitrary: a.hostile }
  )
  const of = 'mapping'
  return [
    { name: 'Mapping.anonymous', arguments: [a.size], makes: of, weight: 4 },
    { name: 'Mapping.anonymous', arguments: [a.size, a.options({}, { ...common, address: a.address, fixed: a.boolean })], makes: of },
    { name: 'Mapping.memfd', arguments: [a.size], makes: of, weight: 3 },
    { name: 'Mapping.memfd', arguments: [a.size, a.options({}, common)], makes: of },
    { name: 'Mapping.hugetlb', arguments: [a.size, a.options({}, { hugePageSize: a.size })], makes: of },
    {
      name: 'Mapping.file',
      arguments: [
        a.mostly(oneOf("'/proc/self/exe'", "'/proc/self/exe'", "'/dev/null'", "'/nowhere'")),
        a.size,
        a.options({}, { offset: a.offset, shared: oneOf('false'), readonly: a.boolean })
      ],
      makes: of
    },
    { name: 'Mapping.anonymous', arguments: [huge], makes: 'huge' },
    { name: 'Mapping.memfd', arguments: [huge], makes: 'huge' },
    { of: 'huge', name: 'get buffer' },
    { of: 'huge', name: 'remap' },
    { of: 'huge', name: 'read', arguments: [a.offset, a.length] },
    { of: 'huge', name: 'protect', arguments: [protection, a.offset, a.length] },
    { of: 'huge', name: 'advise', arguments: [oneOf("'dontneed'", "'random'", "'nohugepage'")] },
    { of: 'huge', name: 'punchHole' },
    { of: 'huge', name: 'close' },
    { of, name: 'get buffer' },
    { of, name: 'get closed' },
    { of, name: 'read', arguments: [a.offset, a.length], weight: 2 },
    { of, name: 'readInto', arguments: [a.offset, a.bytes], weight: 2 },
    { of, name: 'write', arguments: [a.offset, a.bytes], weight: 2, around: disturbs() },
    { of, name: 'fill', arguments: [a.byte, a.offset, a.length], around: disturbs() },
    { of, name: 'fill', arguments: [a.byte], around: disturbs() },
    { of, name: 'remap', arguments: [a.offset, a.length], weight: 2, around: undoes },
    { of, name: 'remap', arguments: [a.offset, a.length, a.bytes], around: undoes },
    { of, name: 'advise', arguments: [advice, a.offset, a.length], around: undoes },
    { of, name: 'punchHole', arguments: [a.offset, a.length], around: undoes },
    { of, name: 'protect', arguments: [protection, a.offset, a.length], around: undoes },
    { of, name: 'onMissing', arguments: [sources], makes: 'paging', weight: 6, around: undoes },
    { of, name: 'onMinorFault', arguments: [a.pageContent], makes: 'paging', around: undoes },
    { of, name: 'close' },
    { of: 'paging', name: 'populate', arguments: [a.offset, a.length] },
    { of: 'paging', name: 'get served' },
    { of: 'paging', name: 'ref' },
    { of: 'paging', name: 'unref' },
    { of: 'paging', name: 'close' }
  ]
}

function slotCalls(a: Arguments): Call[] {
  const mapping = a.mostly(reference('mapping'), fc.oneof(reference('huge'), reference('slot'), a.hostile))
  const slot = a.mostly(reference('slot'), fc.oneof(reference('mapping'), a.hostile))
  const flags = a.options({ logDirty: a.boolean })
  const place = a.options({ gpa: a.gpa, mapping }, { size: a.size, offset: a.offset, readonly: a.boolean, logDirty: a.boolean })
  const [of, tx] = ['slot', 'transaction'] as const
  const disturbsSlot = disturbs('@self, @vm:0, @vm:1, @vm:2')
  return [
    { of: 'vm', name: 'memslots.create', arguments: [place], makes: 'slot', weight: 8 },
    { of: 'vm', name: 'memslots.lookup', arguments: [a.gpa], makes: 'slot', weight: 2 },
    { of: 'vm', name: 'get memslots.length' },
    { of: 'vm', name: 'memslots.toString' },
    { of: 'vm', name: 'memslots.toJSON' },
    { of, name: 'move', arguments: [a.gpa], weight: 3, around: disturbsSlot },
    { of, name: 'change', arguments: [a.options({}, { gpa: a.gpa, mapping, offset: a.offset, size: a.size, flags: a.small })], around: disturbsSlot },
    { of, name: 'rebind', arguments: [mapping], weight: 2, around: disturbsSlot },
    { of, name: 'rebind', arguments: [mapping, a.offset], around: disturbsSlot },
    { of, name: 'resize', arguments: [a.size], around: disturbsSlot },
    { of, name: 'setFlags', arguments: [flags], around: disturbsSlot },
    { of, name: 'getDirtyLog' },
    { of, name: 'clearDirtyLog', arguments: [a.bytes, a.small] },
    { of, name: 'dirtyPages' },
    { of, name: 'delete', weight: 2, around: disturbsSlot },
    { of, name: 'toJSON' },
    { of: tx, name: 'create', arguments: [place], makes: 'slot', weight: 2, around: disturbs('@vm:0, @vm:1') },
    { of: tx, name: 'move', arguments: [slot, a.gpa], weight: 3, around: disturbs('@vm:0, @vm:1') },
    { of: tx, name: 'rebind', arguments: [slot, mapping], around: disturbs('@vm:0, @vm:1') },
    { of: tx, name: 'resize', arguments: [slot, a.size], around: disturbs('@vm:0, @vm:1') },
    { of: tx, name: 'setFlags', arguments: [slot, flags], around: disturbs('@vm:0, @vm:1') },
    { of: tx, name: 'delete', arguments: [slot], around: disturbs('@vm:0, @vm:1') }
  ]
}

/** The calls that observe a VM: dirty logs, statistics, traces, tables. */
function observingCalls(a: Arguments): Call[] {
  const of = 'vm'
  const vm = a.mostly(reference('vm'))
  const kinds = a.mostly(oneOf("['memslot']", "['violation']", "['change', 'notifier']", '[]', "['none']"))
  return [
    { of, name: 'dirtyLog', makes: 'log', weight: 2 },
    {
      of,
      name: 'dirtyLog',
      arguments: [a.options({}, { mode: a.mostly(oneOf("'bitmap'", "'manual'", "'ring'")), ringEntries: oneOf('1024', '0', '3') })],
      makes: 'log'
    },
    { of: 'log', name: 'collect', weight: 2 },
    { of: 'log', name: 'harvest' },
    { of: 'log', name: 'mark', arguments: [a.gpa, a.size] },
    { of: 'log', name: 'close' },
    { of, name: 'get stats', makes: 'statistics' },
    { of: 'statistics', name: 'read' },
    { of: 'statistics', name: 'read', arguments: [a.mostly(oneOf("'exits'", "'toString'"))] },
    { of: 'statistics', name: 'close' },
    {
      name: 'trace',
      arguments: [vm, a.options({}, { ringSize: oneOf('4096', '8192', '4097', '-1', 'NaN'), kinds, heldLimit: a.small, everywhere: a.boolean })],
      makes: 'trace',
      weight: 2
    },
    { of: 'trace', name: 'drain' },
    { of: 'trace', name: 'get lost' },
    { of: 'trace', name: 'close' },
    { name: 'mirror', arguments: [vm], makes: 'mirror' },
    { name: 'translate', arguments: [reference('mirror'), a.gpa] },
    { of: 'mirror', name: 'close' },
    { name: 'translate', arguments: [vm, a.gpa], weight: 2 },
    { name: 'tables', arguments: [vm], makes: 'tables', weight: 2 },
    { name: 'tables', arguments: [vm, a.options({}, { gpa: a.gpa, size: a.size })], makes: 'tables' }
  ]
}

function vmCalls(a: Arguments): Call[] {
  const of = 'vm'
  const msi = a.options({ address: oneOf('0xfee00000', '-1', '2 ** 32'), data: a.small })
  const capability = a.mostly(
    oneOf(
      ...['IRQCHIP', 'NR_MEMSLOTS', 'MAX_VCPUS', 'MANUAL_DIRTY_LOG_PROTECT2', 'DIRTY_LOG_RING', 'X86_USER_SPACE_MSR'].map((name) => `'${name}'`),
      '0'
    )
  )
  return [
    { name: 'Kvm.open', makes: 'kvm' },
    { name: 'Kvm.open', arguments: [a.mostly(oneOf("'/dev/kvm'", "'/dev/null'", "'/nowhere'"))], makes: 'kvm' },
    { of: 'kvm', name: 'createVm', makes: of, weight: 3 },
    { of: 'kvm', name: 'createVm', arguments: [a.small], makes: of },
    { of: 'kvm', name: 'capabilities.check', arguments: [capability] },
    { of: 'kvm', name: 'supportedCpuid' },
    { of: 'kvm', name: 'close' },
    { of, name: 'createVcpu', makes: 'vcpu', weight: 3 },
    { of, name: 'createVcpu', arguments: [a.small], makes: 'vcpu' },
    { of, name: 'vcpu', arguments: [a.small], makes: 'vcpu' },
    { of, name: 'share', makes: 'token' },
    { name: 'Vm.attach', arguments: [a.mostly(reference('token'))], makes: of },
    { of, name: 'createGuestMemfd', arguments: [a.options({ size: a.size }, { flags: a.small })], makes: 'memfd' },
    { of: 'memfd', name: 'close' },
    { of, name: 'capabilities.check', arguments: [capability] },
    { of, name: 'capabilities.enable', arguments: [capability, a.big], around: disturbs() },
    { of, name: 'interrupts.createIrqchip' },
    { of, name: 'interrupts.createPit', arguments: [a.options({}, { speaker: a.boolean })] },
    { of, name: 'interrupts.setLine', arguments: [a.small, a.boolean], around: disturbs() },
    { of, name: 'interrupts.signalMsi', arguments: [msi], around: disturbs() },
    { of, name: 'interrupts.setRouting', arguments: [a.mostly(oneOf('[]', "[{ gsi: 1, irqchip: 'ioapic', pin: 1 }]", 'shrinking([{}, {}])'))] },
    { of, name: 'interrupts.irqfd', arguments: [a.options({ gsi: a.small }, { resample: a.boolean })], makes: 'irqfd', around: disturbs() },
    ...observingCalls(a),
    { of, name: 'memory.read', arguments: [a.gpa, a.length] },
    { of, name: 'memory.write', arguments: [a.gpa, a.bytes], around: disturbs() },
    { of, name: 'close', weight: 2 },
    { name: 'hostVms', arguments: [oneOf('{ pid: process.pid }', '{ pid: 1 }', 'null', '{ pid: -1 }')] },
    { name: 'diff', arguments: [a.mostly(reference('tables')), a.mostly(reference('tables'))] },
    { name: 'summarize', arguments: [a.mostly(reference('tables'))] },
    { name: 'readPagemap', arguments: [a.gpa, a.small] },
    { name: 'Guest.create', arguments: [reference('vm')], makes: 'guest' },
    { of: 'guest', name: 'read', arguments: [a.gpa], weight: 2, around: ['', '; disturb(@vm:0, @vm:1, @vm:2)'] },
    { of: 'guest', name: 'write', arguments: [a.gpa, a.big], around: ['', '; disturb(@vm:0, @vm:1, @vm:2)'] }
  ]
}

function vcpuCalls(a: Arguments): Call[] {
  const of = 'vcpu'
  const registers = a.options({}, { rax: a.big, rip: a.big, rflags: a.big, rsp: a.big })
  // Without a limit, a guest may rightly run for ever.
  const timeout = oneOf(
    '{ timeoutMs: 0 }',
    '{ timeoutMs: 1 }',
    '{ timeoutMs: NaN }',
    '{ timeoutMs: -1 }',
    "{ timeoutMs: '1' }",
    '{ timeoutMs: 10, more: 1 }',
    'null'
  )
  const exit = a.handler('exit', 'return undefined', 'return 1')
  const heard = fc.tuple(exit).map(([[head, ...rest]]) => [`${head} hear(@self, exit); `, ...rest])
  const handlers = a.options({}, { "'io-out'": heard, hlt: exit, mmio: exit, memory: exit, interrupted: exit })
  const signal = oneOf('AbortSignal.abort(planted())', 'new AbortController().signal', '{}', 'null')
  const queued = a.mostly(oneOf('[{ port: 0x10, size: 2 }]', '[{ gpa: 0x20000, size: 4096 }]', 'shrinking([{ port: 0x10 }, {}])'))
  const mode = a.options({ ip: a.address }, { sp: a.address, cs: a.small, tables: a.address, ring: a.small, identityBytes: a.size })
  const changes = disturbs()
  return [
    { of, name: 'run', arguments: [oneOf('{ timeoutMs: 10 }')], weight: 8, around: hears },
    { of, name: 'run', arguments: [timeout], around: hears },
    { of, name: 'finishExit', weight: 2, around: hears },
    { of, name: 'start', arguments: [handlers], weight: 5, around: hears },
    { of, name: 'start', arguments: [handlers, a.options({}, { signal, queued })], weight: 2, around: hears },
    { of, name: 'pause', weight: 2 },
    { of, name: 'resume', weight: 2 },
    { of, name: 'stop', weight: 2 },
    { of, name: 'kick', weight: 2 },
    { of, name: 'ref' },
    { of, name: 'unref' },
    { of, name: 'get state' },
    { of, name: 'get events.readyForInterrupt' },
    { of, name: 'events.requestInterruptWindow', arguments: [a.boolean] },
    { of, name: 'enter', arguments: [a.mostly(oneOf("'real'", "'protected'", "'long'")), mode], around: changes },
    { of, name: 'get stats', makes: 'statistics' },
    { of, name: 'close', weight: 2 },
    { of, name: 'setSignalMask', arguments: [a.mostly(oneOf('[]', '[10]', '[1, 2, 3]', 'new Set([65])', 'shrinking([1, 2])'))], around: changes },
    { of, name: 'registers.get', makes: 'registers' },
    { of, name: 'registers.get', arguments: [a.mostly(reference('registers'))] },
    { of, name: 'registers.set', arguments: [fc.oneof(registers, reference('registers'))], around: changes },
    { of, name: 'registers.getSpecial' },
    { of, name: 'registers.setSpecial', arguments: [a.options({}, { cr0: a.big, cr3: a.big, cr4: a.big, efer: a.big })], around: changes },
    { of, name: 'registers.getFpu' },
    { of, name: 'registers.setFpu', arguments: [a.options({}, { fcw: a.small, fpr: a.bytes })], around: changes },
    { of, name: 'debug.getRegisters' },
    {
      of,
      name: 'debug.setRegisters',
      arguments: [a.options({}, { dr7: a.big, db: a.mostly(oneOf('[0n, 0n, 0n, 0n]', '[1n]', 'new Array(9)')) })],
      around: changes
    },
    { of, name: 'events.getMpState' },
    { of, name: 'events.setMpState', arguments: [a.small], around: changes },
    { of, name: 'debug.set', arguments: [a.options({}, { control: a.small })], around: changes },
    { of, name: 'debug.translate', arguments: [a.big] },
    {
      of,
      name: 'cpuid.set',
      arguments: [a.mostly(oneOf('[]', '[{ function: 1 }]', '[null]', 'shrinking([{}, {}])', 'new Proxy([{}], {})'))],
      around: changes
    },
    { of, name: 'msrs.get', arguments: [a.mostly(oneOf('[0x10]', '[]', '[-1]', '[2 ** 32 + 1]', 'shrinking([0x10, 0x11])', "['1']"))] },
    {
      of,
      name: 'msrs.set',
      arguments: [a.mostly(oneOf('new Map([[0x10, 0n]])', 'new Map([[0x174, 2n ** 64n]])', 'new Map()', '[[1, 2n]]'))],
      around: changes
    },
    { of, name: 'events.interrupt', arguments: [a.small], around: changes },
    { of, name: 'events.nmi', around: changes },
    { of, name: 'lapic.get' },
    { of, name: 'lapic.set', arguments: [a.bytes], around: changes }
  ]
}

function sourceCalls(a: Arguments): Call[] {
  const kinds: Kind[] = ['irqfd', 'ioeventfd']
  const listener = a.handler('', 'return')
  const each = (of: Kind): Call[] => [
    { of, name: 'on', arguments: [oneOf("'event'", "'close'"), listener], weight: 2 },
    { of, name: 'ref' },
    { of, name: 'unref' },
    { of, name: 'get closed' },
    { of, name: 'close', weight: 2 }
  ]
  return [...kinds.flatMap(each), { of: 'irqfd', name: 'trigger' }, { of: 'zone', name: 'drain', weight: 2 }, { of: 'zone', name: 'close' }]
}

export const callsOf = (a: Arguments): Call[] => [...mappingCalls(a), ...slotCalls(a), ...vmCalls(a), ...vcpuCalls(a), ...sourceCalls(a)]
