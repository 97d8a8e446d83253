import { spawnSync } from 'node:child_process'
import { beforeEach, describe, expect, test } from 'vitest'
import { built, commandLine } from '../support/built.js'
import { needsKvm, needsPaging, needsRoot } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { skip } from '../support/skip.js'

const run = (path: string, args: string[] = [], options: object = {}) =>
  spawnSync(process.execPath, [built(path), ...args], { encoding: 'utf8', timeout: patience, ...options })
const command = (...args: string[]) => run('lib/cli/main.js', args)

const outputs: Record<string, (string | RegExp)[]> = {
  hello: ['Hello from a guest in real mode.'],
  'long-mode': ['Fibonacci number 90 is 2880067194370816120, says the guest at CPL 3.'],
  'memslot-move': [
    'slot at 0xa000: the guest reads 0xaaaaaaaaaaaaaaaa',
    'moved to 0xe000: at 0xa000 the guest gets an MMIO exit, at 0xe000 it reads 0xaaaaaaaaaaaaaaaa',
    'rebound: at 0xe000 the guest reads 0xbbbbbbbbbbbbbbbb',
    'deleted: at 0xe000 the guest gets an MMIO exit'
  ],
  'mmio-device': [
    'write of the register at 0x80000000: counter 5',
    'write of the register at 0x80000000: counter 10',
    'read of the register at 0x80000000: counter 10',
    'the guest saw 10'
  ],
  'dirty-log': [
    'after reading three pages: none',
    'after writing three:       0x201000 0x202000 0x210000',
    'asked again:               none',
    'written by the host:       none'
  ],
  'two-vcpus': ['states: running, running', 'two vCPUs counted to 4000000, in 2048 KiB they share', "the event loop's timers came meanwhile: yes"],
  'live-memslot-move': [
    '100 transactions that swapped two slots: 0 MMIO exits, 0 wrong words',
    // It is a matter of chance whether the guest hits the gap.
    /^100 bare moves away and back: (MMIO exits in the gap|no MMIO exit this time), 0 wrong words$/,
    'the guest read all the while: yes'
  ],
  'timer-interrupt': ['tick 1', 'tick 2', 'tick 3', 'tick 4', 'tick 5'],
  'pre-copy': ['the copy equals the memory', 'the guest goes on in the copy'],
  'post-copy': [
    'at the old place the sum is 125690',
    'at the new place it is 125690, then 125690: the same',
    '1024 of 1024 pages followed, each once'
  ],
  'demand-paging': ['from the file: 160014, 4 of 512 pages loaded', 'after a read by the host: 5 pages', 'made up: 408000, 4 pages made'],
  'minimal-vmm': ['minimal-vmm: ready', 'HELLO, MACHINE', 'minimal-vmm: off']
}

describe('examples', () => {
  test.for(Object.entries(outputs))('%s prints what it should', ([name, lines], context) => {
    needsKvm(context)
    const { stdout, stderr, status } = run(`examples/${name}.js`)
    if (stderr.includes('userfaultfd: EPERM')) needsPaging(context)
    const expected = lines.map((line) => (typeof line === 'string' ? line : expect.stringMatching(line)))
    expect({ lines: stdout.split('\n'), stderr, status }).toEqual({ lines: [...expected, ''], stderr: '', status: 0 })
  })
})

describe('node-kvm walkthrough', () => {
  beforeEach(needsKvm)
  test('checks every step, and says so', () => {
    const { stdout, status } = command('walkthrough')
    expect(stdout).toMatch(/\nok: \d+ checks\n$/)
    expect(stdout).not.toContain('FAIL')
    expect(status).toBe(0)
    expect(stdout.match(/^ {3}GPA -> HVA .*\n {3}HVA -> HPA .*\n {3}GPA -> HPA {2}(EPT|NPT|shadow pages) /gm)).toHaveLength(6)
  })
  test('has six steps as JSON, each with addresses and checks', () => {
    const { stdout, status } = command('walkthrough', '--json')
    const result = JSON.parse(stdout)
    expect(status).toBe(0)
    expect(result.ok).toBe(true)
    expect(result.steps).toHaveLength(6)
    for (const step of result.steps) {
      expect(step.checks.length).toBeGreaterThan(1)
      expect(step.checks.every((check: { ok: boolean }) => check.ok)).toBe(true)
      expect(step.gpa).toEqual(expect.any(Number))
    }
    const [first, remapped, moved, rebound, absent] = result.steps
    expect(remapped.hva).toBe(first.hva)
    if (first.hpa !== null) expect(remapped.hpa).not.toBe(first.hpa)
    expect(moved).toMatchObject({ gpa: 0xe000, hva: first.hva })
    expect(rebound.hva).not.toBe(first.hva)
    expect(absent.hva).toBeNull()
    // If the third table may be read, it is there; if not, a note says why.
    if (result.steps.some((step: { secondStage: unknown }) => step.secondStage === null)) {
      expect(result.notes.join()).toContain('the third table is not shown')
      return
    }
    for (const { hpa, agrees, secondStage } of [first, remapped, moved, rebound]) {
      expect(secondStage.accessed).toMatchObject({ present: true, level: 1, ...(hpa !== null && { hpa }) })
      if (hpa !== null) expect(agrees).toBe(true)
    }
    for (const { secondStage } of [remapped, moved, rebound, absent]) {
      expect(secondStage.before.present).toBe(true)
      expect(secondStage.changed.present).toBe(false)
    }
    expect(absent.secondStage.accessed.present).toBe(false)
  })
})

describe('node-kvm walkthrough where BPF cannot read the third table', () => {
  beforeEach(needsKvm)
  test('says without privilege what it cannot show, and goes on', (context) => {
    needsRoot(context, 'give capabilities up')
    const args = ['--bounding-set=-bpf,-perfmon,-sys_admin', process.execPath, commandLine, 'walkthrough']
    const { stdout, status } = spawnSync('setpriv', args, { encoding: 'utf8', timeout: patience })
    expect(status).toBe(0)
    expect(stdout).toMatch(/note: the third table is not shown: .*no CAP_BPF and no CAP_PERFMON/)
    expect(stdout).toMatch(/note: HPAs are not shown: .*CAP_SYS_ADMIN/)
    expect(stdout).toMatch(/GPA -> HPA .* -> not visible/)
    expect(stdout).toMatch(/\nok: \d+ checks\n$/)
  })

  test('mirrors it from events on a kernel without BTF, or says why that would not be exact', (context) => {
    needsRoot(context, 'hide the BTF in a mount namespace of its own')
    const hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    const args = ['-m', 'sh', '-c', hidden, 'sh', process.execPath, commandLine, 'walkthrough', '--json']
    const { stdout, stderr, status } = spawnSync('unshare', args, { encoding: 'utf8', timeout: patience })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const { steps, notes, host } = JSON.parse(stdout)
    expect(notes.join()).toContain('the kernel has no BTF')
    if (!host.tdpMmu) {
      expect(notes.join()).toContain('nor mirrored')
      for (const step of steps) expect(step).toMatchObject({ secondStage: null, agrees: null })
      return
    }
    expect(notes.join()).toContain('mirrored from trace events')
    for (const { hva, hpa, agrees, secondStage } of steps.filter(({ hva }: { hva: number | null }) => hva !== null))
      expect({ hva, hpa: secondStage.accessed.hpa, agrees }).toEqual({ hva, hpa, agrees: true })
  })
})

describe('node-kvm doctor', () => {
  test('names the second stage as JSON, and finds a usable KVM', (context) => {
    needsKvm(context)
    const { stdout, status } = command('doctor', '--json')
    const diagnosis = JSON.parse(stdout)
    expect(diagnosis.ok).toBe(true)
    expect(status).toBe(0)
    expect(['ept', 'npt', 'shadow']).toContain(diagnosis.host.mmu)
    for (const finding of diagnosis.findings) if (!finding.ok) expect(finding.remedy ?? finding.advice).toEqual(expect.any(String))
  })
  test('says without permission what grants it', (context) => {
    needsKvm(context)
    needsRoot(context, 'become somebody who may not open /dev/kvm')
    // A folder that only root may enter would hide the program itself, not /dev/kvm.
    const { stdout, stderr, status, error } = run('lib/cli/main.js', ['doctor', '--json'], { uid: 65534, gid: 65534 })
    if (error || stderr.includes('EACCES: permission denied'))
      return skip(context, 'another user may not read this folder, or that of the Node binary')
    const device = JSON.parse(stdout).findings[0]
    if (device.ok) return skip(context, 'everybody may open /dev/kvm here')
    expect(status).toBe(1)
    expect(device.detail).toContain('EACCES')
    expect(device.remedy).toContain('kvm')
  })
})

describe('bad input on the command line', () => {
  test.each([
    [[], 'a command is needed'],
    [['nonsense'], "there is no command 'nonsense'"],
    [['constructor'], 'no command'],
    [['doctor', '--verbose'], '--verbose'],
    [['doctor', 'more'], "takes no 'more'"]
  ])('%j is refused', (args, message) => {
    const { stderr, status } = command(...(args as string[]))
    expect(status).toBe(2)
    expect(stderr).toContain(message)
    expect(stderr).toContain('usage: node-kvm')
  })
  test('help and version are printed', () => {
    expect(command('--help').stdout).toContain('usage: node-kvm')
    expect(command('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})
