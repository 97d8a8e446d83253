/** Why a trace does not open: the library looks for the cause, and says only what it found out. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Mapping } from 'node-kvm'
import { trace } from 'node-kvm/observe'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { compile } from '../support/compile.js'
import { needsKvm, needsTracepoints } from '../support/needs.js'
import { outputOf } from '../support/program.js'
import { needsRestricting, systemCalls } from '../support/restricted.js'
import { untilRunning } from '../support/running.js'
import { vm } from '../support/vm.js'

const folder = mkdtempSync(join(tmpdir(), 'node-kvm-trace-errors-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeEach(needsKvm)
beforeEach(needsTracepoints)

const program = "console.log(errorOf(() => trace(Kvm.open().createVm(), { kinds: ['zap-all'] }).close()))"
/** Runs as root without these capabilities, with a tracefs as it would be mounted. */
const without = (capabilities: string[], limits = ':') => {
  const set = capabilities.map((name) => `-${name}`).join()
  const inside = `mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null; ${limits}; exec setpriv --bounding-set ${set} --inh-caps ${set} -- "$0" "$@"`
  return `exec unshare -m sh -c '${inside}' "$0" "$@"`
}

describe('in a process from which something was taken', () => {
  beforeEach(needsRestricting)

  test('rings that are more than may be locked are told with both limits, and no capability to trace is asked for', () => {
    const [line] = outputOf(program, { shell: without(['ipc_lock'], 'ulimit -l 64') })
    expect(line).toMatch(
      /^limit \| EPERM \| opening tracepoints: EPERM; the rings, 4100 KiB for each of \d+ processors?, are more than this user may lock/
    )
    expect(line).toMatch(
      /\d+ KiB for each processor \(\/proc\/sys\/kernel\/perf_event_mlock_kb\) and 64 KiB for the process \(ulimit -l, RLIMIT_MEMLOCK\)/
    )
    expect(line).not.toContain('CAP_PERFMON')
    const small = outputOf("console.log(errorOf(() => trace(Kvm.open().createVm(), { kinds: ['zap-all'], ringSize: 4096 }).close()))", {
      shell: without(['ipc_lock'], 'ulimit -l 64')
    })
    expect(small).toEqual(['worked'])
  })

  test('the lack of CAP_PERFMON is said, and perf_event_paranoid', () => {
    const [line] = outputOf(program, { shell: without(['perfmon', 'sys_admin']) })
    expect(line).toMatch(/^permission \| E(PERM|ACCES) \| .*this process lacks CAP_PERFMON, and \/proc\/sys\/kernel\/perf_event_paranoid is \d/)
  })

  test('a seccomp filter is named, and no capability that is held', (context) => {
    const refuse = compile(context, 'refuse', folder)
    const [line] = outputOf(program, { shell: `exec ${refuse} ${systemCalls.perf_event_open} -- "$0" "$@"` })
    expect(line).toMatch(/^permission \| EPERM \| .*has the capability for it, and is under a seccomp filter/)
  })
})

test('descriptors that run out are told as such by the doctor, and lack neither tracefs, BPF nor binutils', () => {
  const output = outputOf(
    `
    await diagnose()
    const told = new Set()
    for (let free = 0; free < 12; free++) {
      const filler = []
      try { for (;;) filler.push(openSync('/dev/null')) } catch {}
      for (const fd of filler.splice(0, free)) closeSync(fd)
      const found = await diagnose().then(({ findings }) => findings, (error) => [{ name: 'all', detail: error.message }])
      for (const fd of filler) closeSync(fd)
      for (const { name, ok, detail, advice = '', remedy = '' } of found)
        if (!ok && ['all', 'tracefs', 'tracepoints by perf', 'BPF', 'binutils', 'pagemap frames'].includes(name) && detail.includes('EMFILE'))
          told.add(name + ': ' + (remedy || /see open files|this process may open no more/.exec(advice + detail)?.[0]))
    }
    console.log([...told].sort().join('\\n'))
    process.exit()`,
    { shell: 'ulimit -n 128' }
  )
  expect(output.length).toBeGreaterThanOrEqual(3)
  for (const line of output) expect(line).toMatch(/: (see open files|this process may open no more)$/)
})

test('a vCPU that runs gives no statistics the first time: the trace opens, says so, and tells of them from its first pause on', async () => {
  const page = Mapping.anonymous(4096)
  vm.memslots.create({ gpa: 0, mapping: page })
  page.write(0, new Uint8Array([0xeb, 0xfe])) // jmp .
  const vcpu = vm.createVcpu().enter('real', { ip: 0 })
  const ended = vcpu.start({}).catch(() => {})
  await untilRunning(vcpu)
  using recording = trace(vm, { kinds: ['statistics'] })
  expect(recording.missing).toEqual([expect.stringContaining('reported from the first drain on that finds it stopped')])
  const ofVcpu = () => recording.drain().filter((event) => event.kind === 'statistics' && event.of.includes('vcpu'))
  expect(ofVcpu()).toEqual([])
  await vcpu.pause()
  expect(ofVcpu()).toEqual([])
  vcpu.resume()
  await untilRunning(vcpu)
  await vcpu.pause()
  expect(ofVcpu()).toMatchObject([{ kind: 'statistics', of: vcpu.stats.describe().id }])
  await vcpu.stop()
  await ended
})
