import { existsSync, readFileSync } from 'node:fs'
import { KiB, MiB } from 'node-kvm'
import { type Diagnosis, diagnose } from 'node-kvm/observe'
import { beforeEach, describe, expect, test } from 'vitest'
import { mayGainCapability } from '../../lib/observe/privileges.js'
import { compile } from '../support/compile.js'
import {
  doctorWords,
  finding,
  MountNamespace,
  needsDevice,
  needsRestricting,
  nobody,
  nobodyWith,
  remedyOf,
  systemCalls
} from '../support/restricted.js'
import { skip } from '../support/skip.js'

/** The names, among these, whose findings are not ok. */
const missing = ({ findings }: Diagnosis, among: string[]) => findings.filter(({ name, ok }) => !ok && among.includes(name)).map(({ name }) => name)
const openDevice = 'mknod kvm c 10 232 && chmod 666 kvm && mount --bind kvm /dev/kvm'
/** If the kernel has that device, another file takes its place, so that there is one way less to a userfaultfd. */
const withoutPagingDevice = '{ test ! -e /dev/userfaultfd || mount --bind /dev/null /dev/userfaultfd; }'
const pagingDevice = 'cp -a /dev/userfaultfd . && chown 0:0 userfaultfd && chmod 600 userfaultfd && mount --bind userfaultfd /dev/userfaultfd'
const privileged = ['tracepoints by perf', 'BPF', 'pagemap frames', 'userfaultfd']

test('every finding says what was found, and one that is not ok says what to do', async () => {
  const { host, findings, capabilities, ok } = await diagnose()
  expect(new Set(findings.map(({ name }) => name)).size).toBe(findings.length)
  for (const { name, detail, ok, remedy, advice } of findings)
    expect({ name, detail: detail.length > 0, done: ok || (remedy ?? advice) !== undefined }).toEqual({ name, detail: true, done: true })
  expect(findings[0]).toMatchObject({ name: 'add-on', ok: true })
  expect(ok).toBe(findings.find(({ name }) => name === 'guests')?.ok)
  expect(capabilities === null).toBe(!findings.find(({ name }) => name === '/dev/kvm')?.ok)
  if (host.mmu !== 'shadow' || !capabilities || capabilities.PRE_FAULT_MEMORY) return
  // A newer kernel does not bring what only EPT and NPT have.
  const found = findings.find(({ name }) => name === 'capabilities')
  expect(found).toMatchObject({ ok: false, detail: expect.stringContaining('PRE_FAULT_MEMORY needs EPT or NPT') })
})

describe('in a child from which something was taken', () => {
  beforeEach((context) => {
    needsRestricting(context)
    needsDevice(context)
  })

  test('root lacks nothing that another user does', async () => {
    using host = await MountNamespace.with(openDevice)
    const diagnosis = host.truthful([])
    const { kernel } = diagnosis.host
    expect({ kernel, missing: missing(diagnosis, ['tracefs', 'pagemap frames', 'userfaultfd', 'threads', 'locked memory']) }).toEqual({
      kernel,
      missing: []
    })
  })

  test('each remedy for a lacking capability opens a shell in which its finding is ok', async () => {
    using host = await MountNamespace.with(openDevice)
    const root = host.truthful([])
    const before = host.truthful()
    expect(before.ok).toBe(true)
    for (const name of ['BPF', 'pagemap frames']) {
      if (!finding(root, name).ok) continue
      const { price, detail } = finding(before, name)
      expect({ name, price, detail }).toMatchObject({ name, price: expect.stringMatching(/^every program started from that shell/) })
      const inside = host.doctorInShellOf(remedyOf(before, name))
      expect(finding(inside, name)).toMatchObject({ ok: true })
      // Capabilities of a file would take this away; here /proc/self still belongs to the user.
      expect(finding(inside, '/proc/self')).toMatchObject({ ok: true })
      expect(inside.ok).toBe(true)
    }
  })

  test('userfaultfd is had by giving its device to the user', async (context) => {
    if (!existsSync('/dev/userfaultfd')) return skip(context, 'this kernel has no /dev/userfaultfd')
    using host = await MountNamespace.with(`${openDevice} && ${pagingDevice}`)
    if (readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8') !== '0\n') return skip(context, 'everybody may serve page faults here')
    const before = host.truthful()
    expect(finding(before, 'userfaultfd').detail).toContain(
      'CAP_SYS_PTRACE is not held, vm.unprivileged_userfaultfd is 0, /dev/userfaultfd gives EACCES'
    )
    host.shell(remedyOf(before, 'userfaultfd'))
    expect(finding(host.truthful(), 'userfaultfd')).toMatchObject({ ok: true })
  })

  test('userfaultfd is had without its device by a shell with CAP_SYS_PTRACE', async (context) => {
    using host = await MountNamespace.with(`${openDevice} && ${withoutPagingDevice}`)
    if (readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8') !== '0\n') return skip(context, 'everybody may serve page faults here')
    const before = host.truthful()
    expect(finding(host.doctorInShellOf(remedyOf(before, 'userfaultfd')), 'userfaultfd')).toMatchObject({ ok: true })
  })

  test('tracefs and tracepoints are had by mounting for a group, and then by CAP_PERFMON', async () => {
    using host = await MountNamespace.with(openDevice)
    if (!finding(host.truthful([]), 'tracepoints by perf').ok) expect.fail('root itself cannot trace')
    const before = host.truthful()
    expect(missing(before, ['tracefs', 'tracepoints by perf'])).toEqual(['tracefs', 'tracepoints by perf'])
    expect(finding(before, 'tracepoints by perf').advice).toContain('see tracefs')
    try {
      host.shell(remedyOf(before, 'tracefs'))
      const between = host.truthful()
      expect(finding(between, 'tracefs')).toMatchObject({ ok: true })
      expect(finding(host.doctorInShellOf(remedyOf(between, 'tracepoints by perf')), 'tracepoints by perf')).toMatchObject({ ok: true })
      expect(host.truthful(nobodyWith('perfmon'))).toMatchObject({ ok: true })
    } finally {
      // The options belong to the only tracefs that the host has.
      host.shell(
        'grep -q " /sys/kernel/tracing tracefs" /proc/mounts || mount -t tracefs tracefs /sys/kernel/tracing; mount -o remount,gid=0,mode=700 /sys/kernel/tracing'
      )
      expect(host.shell('stat -c %a /sys/kernel/tracing').trim()).toBe('700')
    }
  })

  test('tracefs is not ok where everybody sees its folders and root alone reads its formats', async () => {
    using host = await MountNamespace.with(openDevice)
    // The options belong to the only tracefs that the host has.
    const mounted = 'grep -q " /sys/kernel/tracing tracefs" /proc/mounts || mount -t tracefs tracefs /sys/kernel/tracing'
    const remount = (options: string) => host.shell(`${mounted}; mount -o remount,${options} /sys/kernel/tracing`)
    try {
      remount('gid=0,mode=755')
      const before = host.truthful(nobodyWith('perfmon'))
      expect(finding(before, 'tracefs').detail).toContain('EACCES')
      expect(missing(before, ['tracefs', 'tracepoints by perf'])).toEqual(['tracefs', 'tracepoints by perf'])
      host.shell(remedyOf(before, 'tracefs'))
      expect(missing(host.truthful(nobodyWith('perfmon')), ['tracefs', 'tracepoints by perf'])).toEqual([])
    } finally {
      remount('gid=0,mode=700')
    }
  })

  // No command can change how a kernel was built or booted, so the test checks only what the doctor says.
  test.for([
    ['BTF', 'mount -t tmpfs tmpfs /sys/kernel/btf', 'the kernel has no BTF', 'CONFIG_DEBUG_INFO_BTF'],
    [
      'lockdown',
      "mount -t tmpfs tmpfs /sys/kernel/security && echo 'none integrity [confidentiality]' > /sys/kernel/security/lockdown",
      'lockdown is at the level confidentiality',
      'lockdown=integrity'
    ]
  ] as const)("BPF is not ok because of the kernel's %s, for which no command is given", async ([, preparation, why, what]) => {
    using host = await MountNamespace.with(`${openDevice} && ${preparation}`)
    const { ok, detail, advice, remedy } = finding(host.truthful([]), 'BPF')
    expect({ ok, detail, advice, remedy }).toEqual({
      ok: false,
      detail: expect.stringContaining(why),
      advice: expect.stringContaining(what),
      remedy: undefined
    })
  })

  test.for([
    [[], privileged],
    [['perfmon'], ['BPF', 'pagemap frames', 'userfaultfd']],
    [['bpf'], privileged],
    [
      ['bpf', 'perfmon'],
      ['pagemap frames', 'userfaultfd']
    ],
    [['sys_admin'], ['userfaultfd']],
    [['sys_ptrace'], ['tracepoints by perf', 'BPF', 'pagemap frames']]
  ] as const)('with %j alone the doctor says what works', async ([names, expected], context) => {
    using host = await MountNamespace.with(`${openDevice} && ${withoutPagingDevice}`)
    const all = host.truthful([])
    const lacksItself = missing(all, privileged)
    const said = missing(host.truthful(names.length === 0 ? nobody : nobodyWith(...names)), privileged)
    // tracefs may be readable to root alone, whatever the capability.
    const beyond = said.filter((name) => name !== 'tracepoints by perf')
    if (lacksItself.length > 0) return skip(context, `root itself lacks ${lacksItself.join()} here`)
    expect(beyond).toEqual(expected.filter((name) => name !== 'tracepoints by perf'))
  })

  test('remedies are commands of sudo where that is installed', async () => {
    // This sudo runs the command that follows, as sudo does for root.
    const sudo = `mkdir bin && printf '#!/bin/sh\\n[ "$1" = -E ] && shift\\nexec "$@"\\n' > bin/sudo && chmod 755 bin/sudo`
    using host = await MountNamespace.with(`mknod kvm c 10 232 && chmod 600 kvm && mount --bind kvm /dev/kvm && ${sudo}`)
    const withSudo = ['env', `PATH=${host.folder}/bin:${process.env['PATH']}`]
    const before = host.truthful([...withSudo, ...nobody])
    for (const { name, remedy } of before.findings) if (remedy) expect({ name, remedy }).toEqual({ name, remedy: expect.stringMatching(/^sudo /) })
    host.run([...withSudo, 'sh', '-c', remedyOf(before, '/dev/kvm')])
    expect(host.truthful([...withSudo, ...nobody])).toMatchObject({ ok: true })
    expect(finding(host.doctorInShellOf(remedyOf(before, 'pagemap frames'), withSudo), 'pagemap frames')).toMatchObject({ ok: true })
  })

  test('no command gives capabilities that the bounding set lacks', async () => {
    using host = await MountNamespace.with(openDevice)
    const who = ['setpriv', '--bounding-set=-bpf,-perfmon,-sys_admin', ...nobody]
    const { detail, advice, remedy } = finding(host.truthful(who), 'BPF')
    expect({ detail, remedy }).toEqual({ detail: 'no CAP_BPF and no CAP_PERFMON', remedy: undefined })
    expect(advice).toMatch(/--cap-add PERFMON --cap-add BPF|CAP_PERFMON and CAP_BPF must be in it/)
  })

  test('no sudo is advised to a session that can gain no privileges', async () => {
    using host = await MountNamespace.with(openDevice)
    const diagnosis = host.truthful([...nobody, '--no-new-privs'])
    for (const { name, ok, remedy } of diagnosis.findings) if (!ok) expect({ name, remedy }).toEqual({ name, remedy: undefined })
    expect(finding(diagnosis, 'BPF').advice).toContain('no_new_privs')
  })

  test('root in a user namespace is told that it has neither BPF nor frames, and that it would outside', async () => {
    using host = await MountNamespace.with(openDevice)
    for (const who of [
      ['unshare', '-r'],
      [...nobody, 'unshare', '-r']
    ]) {
      const diagnosis = host.truthful(who)
      expect(missing(diagnosis, ['BPF', 'pagemap frames'])).toEqual(['BPF', 'pagemap frames'])
      expect(finding(diagnosis, 'BPF').detail).toContain('user namespace')
      for (const name of ['BPF', 'pagemap frames']) expect(finding(diagnosis, name).remedy).toBeUndefined()
    }
  })

  test("a PID namespace that is not the host's is told", async () => {
    using host = await MountNamespace.with(openDevice)
    const diagnosis = host.truthful(['unshare', '--pid', '--fork', '--mount-proc'])
    expect(finding(diagnosis, 'processes')).toMatchObject({ ok: false, detail: expect.stringContaining('PID namespace') })
    expect(diagnosis.ok).toBe(true)
    expect(finding(host.doctor([]), 'processes')).toMatchObject({ ok: true })
  })

  test('what needs /proc is said to be missing, and mounting it mends that', async () => {
    using host = await MountNamespace.with(openDevice)
    host.shell('mount -t tmpfs tmpfs /proc')
    const before = host.doctor([])
    const { ok, detail } = finding(before, '/proc/self')
    expect({ ok, detail }).toEqual({ ok: false, detail: expect.stringContaining('no /proc') })
    host.shell(remedyOf(before, '/proc/self'))
    expect(finding(host.truthful([]), '/proc/self')).toMatchObject({ ok: true })
  })

  test('capabilities of the file of node that cost its own /proc/self are taken from the file', async (context) => {
    using host = await MountNamespace.with(openDevice)
    const node = `${host.folder}/node`
    host.shell(`cp ${process.execPath} ${node}`)
    if (host.run(['setcap', 'cap_bpf,cap_perfmon+ep', node]).status !== 0) return skip(context, 'no setcap here, or no file system for it')
    // A shell stands in between: setpriv itself has the capabilities that the file would give, and its child gains none.
    const who = [...nobody, 'sh', '-c', `exec ${node} "$@"`]
    const before = JSON.parse(host.run([...who, ...doctorWords]).stdout)
    expect(finding(before, '/proc/self').detail).toMatch(/^EACCES: this process is not dumpable.*capabilities from its file/)
    expect(finding(before, 'pagemap frames')).toMatchObject({ ok: false, detail: expect.stringContaining('EACCES'), advice: 'see /proc/self above' })
    expect(before.ok).toBe(true)
    host.shell(remedyOf(before, '/proc/self'))
    const after = JSON.parse(host.run([...who, ...doctorWords]).stdout)
    expect(finding(after, '/proc/self')).toMatchObject({ ok: true })

    host.shell(`chmod 711 ${node}`)
    const unreadable = JSON.parse(host.run([...who, ...doctorWords]).stdout)
    expect(finding(unreadable, '/proc/self').detail).toContain('may be run, but not read')
    host.shell(remedyOf(unreadable, '/proc/self'))
    expect(finding(JSON.parse(host.run([...who, ...doctorWords]).stdout), '/proc/self')).toMatchObject({ ok: true })
  })

  test('a filter that refuses system calls to root is named', async (context) => {
    using host = await MountNamespace.with(`${openDevice} && ${withoutPagingDevice}`)
    const refuse = compile(context, 'refuse', host.folder)
    const program = `/proc/${process.pid}/root${refuse}`
    const filtered = (...names: (keyof typeof systemCalls)[]) => [program, ...names.map((name) => String(systemCalls[name])), '--']
    const unfiltered = host.truthful(filtered())
    const all = host.truthful(filtered('bpf', 'perf_event_open', 'userfaultfd'))
    for (const [name, call] of [
      ['BPF', 'bpf'],
      ['tracepoints by perf', 'perf_event_open'],
      ['userfaultfd', 'userfaultfd']
    ] as const) {
      if (!finding(unfiltered, name).ok) continue
      expect(finding(all, name)).toMatchObject({ ok: false, advice: expect.stringMatching(/seccomp|security-opt/) })
      const { detail, advice } = finding(host.truthful(filtered(call)), name)
      expect(`${detail} ${advice}`).toContain('seccomp filter refuses')
    }
  })
})

describe('limits of the shell', () => {
  beforeEach((context) => {
    needsRestricting(context)
    needsDevice(context)
  })

  test.for([
    ['locked memory', 'memlock', 65_536],
    ['address space', 'as', 1900 * MiB],
    ['file size', 'fsize', 64 * KiB]
  ] as const)('%s is raised up to the hard limit by the user', async ([name, option, low]) => {
    using host = await MountNamespace.with(openDevice)
    const limited = (remedy = ':') => [...nobody, 'prlimit', `--${option}=${low}:`, 'sh', '-c', `${remedy} && exec "$@"`, 'sh', ...doctorWords]
    const before: Diagnosis = JSON.parse(host.run(limited()).stdout)
    expect(finding(JSON.parse(host.run(limited(remedyOf(before, name))).stdout), name)).toMatchObject({ name, ok: true })
  })

  test('open files are raised by root beyond the hard limit, unless root itself may not', async () => {
    using host = await MountNamespace.with(openDevice)
    const limited = (remedy = ':') => ['prlimit', '--nofile=100:100', 'sh', '-c', `${remedy} && exec "$@"`, 'sh', ...nobody, ...doctorWords]
    const found = finding(JSON.parse(host.run(limited()).stdout), 'open files')
    if (!mayGainCapability('sys_resource')) {
      expect({ ...found, remedy: found.remedy }).toMatchObject({ ok: false, advice: expect.stringContaining('--ulimit nofile='), remedy: undefined })
      return
    }
    // The user would paste this; here root's shell runs it, because it needs no password.
    const remedy = (found.remedy as string).replace(/^su -p -s \/bin\/sh -c "(.*)"$/, '$1').replace(/^sudo /, '')
    expect(finding(JSON.parse(host.run(limited(remedy)).stdout), 'open files')).toMatchObject({ ok: true })
  })

  test('too few files even to load what would look give one line', async () => {
    using host = await MountNamespace.with(openDevice)
    // The version of Node determines how many files it needs to come to where the doctor is loaded: this finds the first number that is too small.
    const run = (files: number) => host.run(['prlimit', `--nofile=${files}:${files}`, ...doctorWords])
    let files = 31
    let outcome = run(files)
    while (outcome.stdout !== '' && files > 20) outcome = run(--files)
    const { stdout, stderr, status } = outcome
    expect({ stdout, status, stderr: stderr.trimEnd().split('\n') }).toEqual({
      stdout: '',
      status: 1,
      stderr: [expect.stringContaining('EMFILE; this process may open no more files')]
    })
  })

  test('threads that run out are told with a remedy that gives more', async () => {
    using host = await MountNamespace.with(openDevice)
    // The limit applies to the user, not to the process; this user has no other processes that count.
    const somebody = ['setpriv', '--reuid', '64998', '--regid', '64998', '--clear-groups']
    const limited = (remedy = ':') => [...somebody, 'prlimit', '--nproc=40:', 'sh', '-c', `${remedy} && exec "$@"`, 'sh', ...doctorWords]
    const before: Diagnosis = JSON.parse(host.run(limited()).stdout)
    expect(finding(before, 'threads').detail).toMatch(/^this user may make \d+ more \(\d+ of 40\)/)
    expect(finding(JSON.parse(host.run(limited(remedyOf(before, 'threads'))).stdout), 'threads')).toMatchObject({ ok: true })
  })

  test('threads that the cgroup limits are told with a remedy that gives more', async (context) => {
    if (!/^\d+:pids:\/$/m.test(readFileSync('/proc/self/cgroup', 'utf8')))
      return skip(context, 'no cgroup of version 1 for pids here, whose root this process is in')
    using host = await MountNamespace.with(openDevice)
    const cgroup = '/sys/fs/cgroup/pids/node-kvm-doctor-test'
    host.shell(`mkdir ${cgroup} && echo 50 > ${cgroup}/pids.max`)
    try {
      const there = ['sh', '-c', `echo $$ > ${cgroup}/cgroup.procs && exec "$@"`, 'sh', ...nobody]
      const before = host.truthful(there)
      expect(finding(before, 'threads').detail).toMatch(/^the cgroup .*\/pids\/node-kvm-doctor-test may make \d+ more/)
      host.shell(remedyOf(before, 'threads'))
      expect(finding(host.truthful(there), 'threads')).toMatchObject({ ok: true })
      // The limits of the cgroups above count as well.
      host.shell(`mkdir ${cgroup}/below && echo 50 > ${cgroup}/pids.max`)
      const below = ['sh', '-c', `echo $$ > ${cgroup}/below/cgroup.procs && exec "$@"`, 'sh', ...nobody]
      const { detail } = finding(host.doctor(below), 'threads')
      expect(detail).toMatch(/^the cgroup .*\/pids\/node-kvm-doctor-test may make \d+ more/)
    } finally {
      host.shell(`rmdir ${cgroup}/below ${cgroup} || rmdir ${cgroup}`)
    }
  })
})

describe('what the host has', () => {
  beforeEach(needsRestricting)

  test('huge pages come by the remedy, which fills the pool', async (context) => {
    using host = await MountNamespace.with()
    const pool = '/proc/sys/vm/nr_hugepages'
    const pages = readFileSync(pool, 'utf8').trim()
    const before = host.truthful([])
    if (finding(before, 'hugetlb').ok) return skip(context, 'there are free huge pages here')
    try {
      host.shell(remedyOf(before, 'hugetlb'))
      expect(finding(host.truthful([]), 'hugetlb')).toMatchObject({ ok: true })
    } finally {
      host.shell(`echo ${pages} > ${pool}`)
    }
  })

  test('nothing is said to be missing in the kernel where /sys is not mounted', async () => {
    using host = await MountNamespace.with('mount -t tmpfs tmpfs /sys')
    const diagnosis = host.doctor([])
    for (const name of ['second stage', 'BPF']) expect(finding(diagnosis, name)).toMatchObject({ ok: false, advice: 'see /sys above' })
    expect(JSON.stringify(diagnosis)).not.toMatch(/modprobe|is not loaded|no other kernel/)
    host.shell(remedyOf(diagnosis, '/sys'))
    const after = host.truthful([])
    expect(finding(after, '/sys')).toMatchObject({ ok: true })
    expect(finding(after, 'second stage').detail).not.toContain('/sys')
  })

  test('the package is named of what is missing of binutils and of what the lab needs', async () => {
    using host = await MountNamespace.with('mkdir empty')
    const diagnosis = host.doctor(['env', `PATH=${host.folder}/empty`])
    expect(finding(diagnosis, 'binutils')).toMatchObject({ ok: false, detail: expect.stringContaining('as and ld') })
    const { remedy, advice } = finding(diagnosis, 'binutils')
    expect(remedy ?? advice).toContain('binutils')
    expect(finding(diagnosis, 'lab')).toMatchObject({ ok: false, detail: expect.stringContaining('flock, setpriv') })
  })

  test('names of the environment are printed visibly', async () => {
    using host = await MountNamespace.with()
    const env = { SHELL: "/bin/\u001b]0;x\u0007sh'; rm x", NODE_KVM_ADDON: '/no\u001b[31m' }
    const { stdout, stderr } = host.run([...nobody, ...doctorWords.slice(0, 3)], env)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    expect(stdout + stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    expect(stdout).toContain('\\x1b[31m')
  })
})
