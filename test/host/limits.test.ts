/**
 * A process runs out of some resource: the error names the limit, nothing is left of what was begun, the next try works, and the process lives. Each
 * test uses a separate process.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { beforeEach, describe, expect, type TestContext, test } from 'vitest'
import { needsKvm, needsPaging, needsTracepoints } from '../support/needs.js'
import { outputOf } from '../support/program.js'
import { skip } from '../support/skip.js'

beforeEach(needsKvm)

test('a memfd larger than the limit of files is an error, not the signal that ends the process', () => {
  const program = `
    console.log(resultOf(() => Mapping.memfd(64 * MiB), 'RLIMIT_FSIZE'))
    const small = Mapping.memfd(64 * KiB)
    console.log(resultOf(() => { small.fill(1); small.remap() }))`
  expect(outputOf(program, { shell: 'ulimit -f 1024' })).toEqual(['memory,EFBIG,true', 'worked'])
})

describe('mappings', () => {
  const limit = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'))
  const needed = (context: TestContext) => limit > 2 ** 18 && skip(context, 'vm.max_map_count is far above its usual value here')
  const ways = {
    'protected in parts': "const m = Mapping.anonymous(GiB), next = (n) => m.protect('r', 2 * n * 4096, 4096)",
    'advised in parts': "const m = Mapping.anonymous(GiB), next = (n) => m.advise('random', 2 * n * 4096, 4096)",
    'remapped in parts': 'const m = Mapping.memfd(GiB), next = (n) => m.remap(2 * n * 4096, 4096)',
    // They have different policies, so that the kernel does not merge two neighbours into one.
    'mapped one by one': 'const all = [], next = (n) => all.push(Mapping.anonymous(4096, { hugePages: n % 2 === 0 }))'
  }
  test.for(Object.entries(ways))('those that are %s are refused while the process still has room to live', ([, way], context) => {
    needed(context)
    if (way.includes('hugePages') && !existsSync('/sys/kernel/mm/transparent_hugepage')) skip(context, 'this kernel has no transparent huge pages')
    const program = `
      ${way}
      let n = 0, result
      while ((result = resultOf(() => next(n), 'vm.max_map_count')) === 'worked' && n < 2 ** 17) n++
      console.log(result)
      // V8 needs mappings for its heap, and threads for their stacks.
      const arrays = Array.from({ length: 300 }, (_, index) => new Array(10000).fill(index))
      const other = Kvm.open().createVm()
      console.log(arrays.length, resultOf(() => other.ioeventfd({ port: 1, size: 1 }).unref()))`
    expect(outputOf(program)).toEqual(['limit,ENOMEM,true', '300 worked'])
  })
})

describe('threads', () => {
  const cgroups = '/sys/fs/cgroup/pids'
  const needed = (context: TestContext) => {
    try {
      accessSync(cgroups, constants.W_OK)
    } catch {
      skip(context, 'the pids controller of cgroup v1 is not there, or not writable')
    }
  }
  const withoutThreads = `
    function withoutThreads(work) {
      const group = '${cgroups}/node-kvm-' + process.pid
      mkdirSync(group)
      writeFileSync(group + '/cgroup.procs', String(process.pid))
      writeFileSync(group + '/pids.max', readFileSync(group + '/pids.current', 'utf8'))
      try { return work() }
      finally {
        writeFileSync('${cgroups}/cgroup.procs', String(process.pid))
        rmdirSync(group)
      }
    }`
  const calls = {
    'trace(vm)': 'trace(vm, { ringSize: 4096 })',
    'vcpu.start()': 'vcpu.start({}).catch(() => {})',
    'onMissing(handler)': 'mapping.onMissing(() => null)',
    'onMissing(content)': 'mapping.onMissing({ content: new Uint8Array(100) })',
    'onMinorFault(handler)': 'memfd.onMinorFault(() => null)',
    'vm.ioeventfd()': 'vm.ioeventfd({ port: ++port, size: 1 })',
    'assemble()': "assemble('hlt', { mode: 'real', at: 0 })"
  }
  test.for(Object.entries(calls))('%s is an error without one', ([name, call], context) => {
    needed(context)
    if (name === 'trace(vm)') needsTracepoints(context)
    if (name.startsWith('onMi')) needsPaging(context)
    const program = `
      ${withoutThreads}
      const kvm = Kvm.open(), vm = kvm.createVm(), mapping = Mapping.anonymous(64 * KiB), memfd = Mapping.memfd(64 * KiB)
      vm.memslots.create({ gpa: 0, mapping })
      const vcpu = vm.createVcpu()
      let made, port = 0
      const attempt = () => resultOf(() => { made = ${call} }, 'pids.max')
      const before = descriptors()
      const results = withoutThreads(() => [attempt(), attempt(), descriptors() - before])
      console.log(...results, attempt())
      process.exit(0)`
    const [output = ''] = outputOf(program)
    // Once it is made, the watcher of eventfds belongs to the environment.
    expect(output).toBe('limit,EAGAIN,true limit,EAGAIN,true 0 worked')
  })

  test('collect() of a ring that gets none gives what the guest wrote with the next', (context) => {
    needed(context)
    const program = `
      ${withoutThreads}
      const kvm = Kvm.open(), vm = kvm.createVm()
      if (!kvm.capabilities.check('DIRTY_LOG_RING')) console.log('no rings'), process.exit(0)
      vm.memslots.create({ gpa: 0x20_0000, mapping: Mapping.anonymous(64 * KiB) })
      const log = vm.dirtyLog({ mode: 'ring', ringEntries: 1024 }), guest = Guest.create(vm)
      log.collect()
      guest.write(0x20_3000, 1n)
      console.log(withoutThreads(() => resultOf(() => log.collect(), 'pids.max')))
      console.log(JSON.stringify(log.collect().filter(({ gpa }) => gpa === 0x20_3000)))
      process.exit(0)`
    const lines = outputOf(program)
    if (lines[0] === 'no rings') skip(context, 'this kernel lacks KVM_CAP_DIRTY_LOG_RING')
    expect(lines).toEqual(['limit,EAGAIN,true', '[{"gpa":2109440,"size":4096}]'])
  })
})

test('a dirty log that finds no memory is an error, leaves its slots as they were, and can be made later', (context) => {
  if (process.env['ASAN_OPTIONS']) skip(context, 'AddressSanitizer ends a process that has no memory')
  if (spawnSync('prlimit', ['--version']).status !== 0) skip(context, 'prlimit(1) is not installed')
  const program = `
    const vm = Kvm.open().createVm()
    const slots = [4096, 2 ** 42].map((size, n) => vm.memslots.create({ gpa: n * GiB, mapping: Mapping.memfd(size), size: 4096 }))
    const limit = (bytes) => execFileSync('prlimit', ['--pid', process.pid, '--as=' + bytes + ':'])
    const attempt = () => resultOf(() => vm.dirtyLog(), 'RLIMIT_AS')
    // Its bits take 128 MiB.
    limit(Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024 + 60 * MiB)
    console.log(attempt(), slots.map(({ logDirty }) => logDirty).join())
    limit('unlimited')
    console.log(attempt(), slots.map(({ logDirty }) => logDirty).join())`
  expect(outputOf(program)).toEqual(['memory,ENOMEM,true false,false', 'worked true,true'])
})

const large = {
  'vm.memory.read()': 'vm.memslots.create({ gpa: 0, mapping: Mapping.memfd(GiB) }), () => vm.memory.read(0, GiB)',
  'mapping.read()': '((mapping) => () => mapping.read(0, GiB))(Mapping.memfd(GiB))',
  'readPagemap()': '() => readPagemap(0, 2 ** 24)'
}
test.for(Object.entries(large))('%s is an error where V8 finds no memory', ([, call], context) => {
  if (process.env['ASAN_OPTIONS']) skip(context, 'AddressSanitizer ends a process that has no memory')
  if (spawnSync('prlimit', ['--version']).status !== 0) skip(context, 'prlimit(1) is not installed')
  const program = `
    const vm = Kvm.open().createVm()
    const call = (${call})
    execFileSync('prlimit', ['--pid', process.pid, '--as=' + (Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024 + 20 * MiB)])
    console.log(resultOf(call, 'RLIMIT_AS'))`
  expect(outputOf(program)).toEqual(['memory,ENOMEM,true'])
})

describe('descriptors', () => {
  /** Makes the call with 0, 1, ... descriptors free, until it works: each time either nothing is left, or everything is done. */
  const stepwise = (setup: string, call: string, after = 'undefined') => `
    const kvm = Kvm.open(), vm = kvm.createVm(), mapping = Mapping.memfd(64 * KiB)
    vm.memslots.create({ gpa: 0, mapping })
    const vcpu = vm.createVcpu()
    ${setup}
    const fill = () => { const filler = []; try { for (;;) filler.push(openSync('/dev/null')) } catch { return filler } }
    const results = new Set()
    let made, free = 0
    for (; free < 40; free++) {
      const filler = fill()
      for (const fd of filler.splice(0, free)) closeSync(fd)
      const result = resultOf(() => { made = ${call} }, 'ulimit -n')
      const rest = fill()
      for (const fd of [...filler, ...rest]) closeSync(fd)
      results.add(result)
      if (result === 'worked') break
      // The program that reads VMs belongs to the process: once loaded, it stays.
      if (rest.length !== free && !${/tables|translate|hostVms/.test(call)}) console.log('left open', free - rest.length)
    }
    console.log(...results, ${after})
    process.exit(0)`
  const calls: Record<string, [call: string, setup?: string, after?: string]> = {
    'Mapping.memfd()': ['Mapping.memfd(64 * KiB)'],
    'Mapping.file()': ["Mapping.file('/proc/self/exe', 4096)"],
    'a memfd that is remapped in part': ['mapping.remap(0, 4096)', 'mapping.fill(7)', 'mapping.read(0, 1)[0], mapping.read(4096, 1)[0]'],
    'vm.createVcpu()': ['vm.createVcpu()'],
    'kvm.createVm()': ['kvm.createVm()'],
    'vm.stats': ['vm.stats.read()'],
    'trace(vm)': ["trace(vm, { ringSize: 4096, kinds: ['zap-all'] })", '', 'made.drain().length'],
    'vm.dirtyLog()': ['vm.dirtyLog().collect()', '', 'made.length'],
    'tables(vm)': ['tables(vm)', 'mapping.fill(1)', 'made.gpa.length'],
    'translate(vm)': ['translate(vm, 0)', 'mapping.fill(1)', 'made.hva === mapping.address'],
    'hostVms()': ['hostVms({ pid: process.pid })', '', 'made.length']
  }
  test.for(Object.entries(calls))('%s works or leaves nothing with none, one, two, ... left', ([name, [call, setup, after]], context) => {
    if (name === 'trace(vm)') needsTracepoints(context)
    const [output = '', ...more] = outputOf(stepwise(setup ?? '', call, after), { shell: 'ulimit -n 256' })
    expect(more).toEqual([])
    const done = {
      'a memfd that is remapped in part': '0 7',
      'trace(vm)': '0',
      'vm.dirtyLog()': '1',
      'tables(vm)': '16',
      'translate(vm)': 'true',
      'hostVms()': '1'
    }
    const told = (done as Record<string, string>)[name]
    // A call that takes no descriptor works at once.
    expect([`limit,EMFILE,true worked ${told}`, `worked ${told}`]).toContain(output)
  })

  test('an unusable remap leaves the holes of a memfd usable', () => {
    const program = `
      const mapping = Mapping.memfd(2 * MiB), filler = []
      try { for (;;) filler.push(openSync('/dev/null')) } catch {}
      console.log(resultOf(() => mapping.remap(0, 4096)))
      for (const fd of filler) closeSync(fd)
      console.log(resultOf(() => mapping.punchHole(0, 4096)))
      // A new memfd in place of the whole old one can have holes again.
      mapping.remap()
      console.log(resultOf(() => mapping.punchHole(0, 4096)))`
    expect(outputOf(program, { shell: 'ulimit -n 256' })).toEqual(['limit,EMFILE,true', 'worked', 'worked'])
  })

  test('those of lost objects are taken back before a call fails, without a turn of the event loop', () => {
    const program = `
      const kvm = Kvm.open()
      const makers = {
        vm: () => kvm.createVm(), vcpu: () => kvm.createVm().createVcpu(), memfd: () => Mapping.memfd(4096),
        log() { const vm = kvm.createVm(); vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4096) }); vm.dirtyLog() },
        stats: () => kvm.createVm().stats
      }
      for (const [name, make] of Object.entries(makers)) console.log(name, resultOf(() => { for (let n = 0; n < 400; n++) make() }))`
    expect(outputOf(program, { shell: 'ulimit -n 128' })).toEqual(['vm', 'vcpu', 'memfd', 'log', 'stats'].map((name) => `${name} worked`))
  })
})

test('lost mappings and VMs are collected as more are made, however many descriptors and however much memory there is', () => {
  const program = `
    const kvm = Kvm.open()
    let most = 0
    for (let n = 0; n < 2000; n++) {
      const vm = kvm.createVm()
      vm.memslots.create({ gpa: 0, mapping: Mapping.anonymous(4 * MiB) })
      vm.createVcpu()
      if (n % 100 === 0) most = Math.max(most, descriptors())
    }
    // V8 decides when it collects: after some hundred VMs, or a thousand. If none were collected, there would be nearly 4,000.
    console.log(most < 3000)`
  expect(outputOf(program, { shell: '{ ulimit -n 8192 || :; } 2> /dev/null' })).toEqual(['true'])
})
