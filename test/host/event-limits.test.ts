import { spawnSync } from 'node:child_process'
import { beforeEach, expect, test } from 'vitest'
import { library } from '../support/built.js'
import { needsKvm } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { skip } from '../support/skip.js'

beforeEach(needsKvm)

/** The lines that a separate process prints, each as JSON. */
function run(program: string, limits = ':'): unknown[] {
  const { stdout, stderr, status } = spawnSync('/bin/sh', ['-c', `${limits}; exec "$0" --input-type=module -e "$1"`, process.execPath, program], {
    encoding: 'utf8',
    timeout: patience
  })
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

const prologue = `
  import { Kvm, Mapping } from ${library}
  import { closeSync, openSync, readdirSync } from 'node:fs'
  import { spawnSync } from 'node:child_process'
  // These are held, so that no lost object could be collected instead.
  const kvm = Kvm.open(), vm = kvm.createVm(), ram = Mapping.anonymous(65536)
  vm.memslots.create({ gpa: 0, mapping: ram })
  ram.write(0, new Uint8Array([0xe6, 0x10, 0xf4])) // out %al, $0x10; hlt
  const say = (...words) => console.log(JSON.stringify(words))
  const descriptors = () => readdirSync('/proc/self/fd').length
  function attempt(make) {
    try { return make().close() ?? 'made' } catch (error) { return [error.code, error.errno, error.message] }
  }`

test('ioeventfd() and irqfd() that run out of descriptors in the middle leave the VM as it was, and work the next time', () => {
  const told = run(
    `${prologue}
    vm.interrupts.createIrqchip()
    const vcpu = vm.createVcpu()
    function with_(free, make) {
      const before = descriptors(), filler = []
      try { for (;;) filler.push(openSync('/dev/null')) } catch {}
      for (const fd of filler.splice(0, free)) closeSync(fd)
      const result = attempt(make)
      for (const fd of filler) closeSync(fd)
      return [result, descriptors() - before, vcpu.enter('real', { ip: 0 }).run({ timeoutMs: ${patience} }).reason]
    }
    say('begin')
    for (const free of [0, 1, 2, 3, 4, 5, 2, 3]) say(...with_(free, () => vm.ioeventfd({ port: 0x10, size: 1 })))
    for (let free = 0; free <= 3; free++) say(...with_(free, () => vm.interrupts.irqfd({ gsi: 5, resample: true })))
    const again = vm.ioeventfd({ port: 0x10, size: 1 })
    // The guest halts in the kernel, which has the interrupt controllers, and the write causes no exit before that.
    say(vcpu.enter('real', { ip: 0 }).run({ timeoutMs: 20 }).reason)
    again.close()
    vm.close()
    kvm.close()`,
    'ulimit -n 128'
  )
  const failed = [['limit', 'EMFILE', expect.stringContaining('ulimit -n')], 0, 'io-out']
  expect(told).toEqual([
    ['begin'],
    // These are needed: an eventfd; for the watcher, which stays from then on, an epoll, an eventfd and two ends of a socket; a duplicate for the
    // watcher; then one for KVM.
    ...[failed, failed, failed, failed, failed],
    [failed[0], 4, 'io-out'],
    failed,
    ['made', 0, 'io-out'],
    // These are needed: two eventfds and a duplicate.
    ...[failed, failed, failed],
    ['made', 0, 'io-out'],
    ['timeout']
  ])
})

test('a lack of threads to watch eventfds with is an error that names the limits, and the next time works', (context) => {
  if (spawnSync('prlimit', ['--version']).error) skip(context, 'needs prlimit(1), to take away the room that a new thread takes')
  if (process.env['LD_PRELOAD']?.includes('asan')) skip(context, 'a sanitizer takes room of its own')
  const told = run(`${prologue}
    import { readFileSync } from 'node:fs'
    const limit = (bytes) => spawnSync('prlimit', ['--pid', process.pid, '--as=' + bytes + ':'])
    const before = descriptors()
    limit(Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024 + 4 * 2 ** 20)
    const result = attempt(() => vm.ioeventfd({ port: 0x10, size: 1 }))
    limit('unlimited')
    say(result, descriptors() - before, vm.createVcpu().enter('real', { ip: 0 }).run().reason)
    say(attempt(() => vm.ioeventfd({ port: 0x10, size: 1 })))
    vm.close()`)
  expect(told).toEqual([[['limit', 'EAGAIN', expect.stringContaining('pids.max')], 0, 'io-out'], ['made']])
})
