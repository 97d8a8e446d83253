import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { KiB, MiB } from 'node-kvm'
import { describeHost, type HostVm, hostVms, tables, translate } from 'node-kvm/observe'
import { describe, expect, test, vi } from 'vitest'
import { execute } from '../../lib/cli/command.js'
import { map } from '../../lib/cli/map.js'
import { fitLabels, layAxis } from '../../lib/cli/map-axis.js'
import { commandLine, library } from '../support/built.js'
import { checkedError } from '../support/errors.js'
import { noLane } from '../support/lane.js'
import { patience } from '../support/patience.js'
import { outputOf } from '../support/program.js'
import { skip } from '../support/skip.js'
import { needsAll } from '../support/tables.js'
import { shareTarget, Target } from '../support/target.js'

/** Runs the command in a separate process, as people run it. */
const spawned = (args: string[], before: string[] = [], options: object = {}) => {
  const [command = '', ...words] = [...before, process.execPath, commandLine, 'map', ...args]
  return spawnSync(command, words, { encoding: 'utf8', timeout: patience, maxBuffer: 2 ** 28, ...options })
}
/** Runs the command in this process, and returns what it prints. */
async function printed(...args: string[]): Promise<string> {
  const lines: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((text) => lines.push(text))
  try {
    expect(await execute(map, 'map', args, noLane)).toBe(0)
  } finally {
    log.mockRestore()
  }
  return lines.join('\n')
}

const base = 0x100_0000
let target: Target
shareTarget((made) => {
  target = made
})
const one = (...args: string[]) => printed('--pid', String(target.pid), ...args)

test('node-kvm map --json lists the VM with its slots', async (context) => {
  needsAll(context)
  const { slots } = await target.do('slots', { count: 3, size: 64 * KiB })
  const found = JSON.parse(await printed('--json')).vms.find(({ pid }: any) => pid === target.pid)
  expect(found).toMatchObject({ vcpus: 0, command: expect.stringContaining('target.mjs'), evidence: { source: 'bpf', torn: false } })
  expect(found.slots).toMatchObject(slots.map((slot: object) => ({ ...slot, addressSpace: 0, flags: 0, backing: 'anonymous' })))
  const list = await printed()
  expect(list).toMatch(new RegExp(`^ +${target.pid} +0 +192 KiB +3 +node .*target.mjs$`, 'm'))
})

test('--pid prints its slots, and --gpa one translation in the form of the thread', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 1, size: 64 * KiB })
  await target.do('guest')
  await target.do('touchAll')
  const {
    truth: [{ hva, hpa }]
  } = await target.do('truth', { gpas: [base + 0x2000] })
  expect(await one()).toMatch(new RegExp(`^ +0 +0 +0x1000000 +64 KiB +0x${(hva - 0x2000).toString(16)} +anonymous$`, 'm'))
  const text = await one('--gpa', `0x${(base + 0x2000).toString(16)}`)
  expect(text).toMatch(new RegExp(`^GPA -> HVA {2}memslots +0x1002000 +-> 0x${hva.toString(16)} +slot 0, anonymous$`, 'm'))
  expect(text).toMatch(new RegExp(`^HVA -> HPA {2}host page tables +0x${hva.toString(16)} -> 0x${hpa.toString(16)} +`, 'm'))
  expect(text).toMatch(new RegExp(`^GPA -> HPA {2}.*0x1002000 +-> 0x${hpa.toString(16)} +level [12] .* rwx`, 'm'))
  expect(text).toContain('the tables agree')
  expect(await one('--gpa', '0xfee00000')).toContain('an access is MMIO')
  const { vms } = JSON.parse(await one('--gpa', String(base + 0x2000), '--json'))
  expect(vms[0].translation).toMatchObject({ gpa: base + 0x2000, hva, hpa, agrees: true, secondStage: { present: true, hpa } })
})

test('--pages, --summary and --svg print and draw the rows', async (context) => {
  needsAll(context)
  await target.do('slots', { count: 1, size: 64 * KiB })
  await target.do('guest')
  await target.do('touchAll')
  const folder = mkdtempSync(join(tmpdir(), 'node-kvm-map-'))
  try {
    const picture = join(folder, 'map.svg')
    const {
      vms: [found]
    } = JSON.parse(await one('--pages', '--summary', '--svg', picture, '--json'))
    const pages = found.pages.filter(({ gpa }: any) => gpa < base + 64 * KiB)
    expect(pages).toHaveLength(16)
    for (const page of pages) expect(page.secondStage.hpa).toBe(page.hpa)
    expect(found.summary).toMatchObject({ disagreeing: 0, slots: 2 })
    expect(found.summary.mapped.total).toBe(found.summary.mapped.small + found.summary.mapped.huge2M)
    expect((await one('--pages')).split('\n').filter((line) => line.includes(' level '))).toHaveLength(
      found.pages.filter((page: any) => page.secondStage).length
    )
    expect(await one('--summary')).toContain('all agree')
    const svg = readFileSync(picture, 'utf8')
    expect(svg).toContain('4 KiB entry')
    expect(svg).toContain('>slot 0<')
    expect(svg).toContain(`<title>gpa 0x1000000-`)
    expect(svg.match(/<polygon/g)?.length).toBeGreaterThan(0)
    expect(svg).not.toMatch(/NaN|undefined|Infinity/)
    await expect(one('--svg', join(folder, 'nowhere', 'map.svg'))).rejects.toMatchObject({ code: 'argument', argument: 'svg' })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

describe('bad input', () => {
  test.each([
    [['--pid', 'x'], "--pid is 'x'"],
    [['--gpa', '0'], 'need --pid'],
    [['--pid', '1', '--gpa', 'y'], "--gpa is 'y'"],
    [['4711'], "takes no '4711'"],
    [['--pids'], '--pids']
  ])('%j is told with the usage', async (args, message) => {
    await expect(execute(map, 'map', args, noLane)).rejects.toThrow(message)
  })

  test('what is no process, and a process that runs no VM, are told', (context) => {
    expect(checkedError(() => hostVms({ pid: 4_000_000 }), 'argument').message).toContain('there is no process 4000000')
    if (process.getuid?.() !== 0) skip(context, "another user's processes are hidden")
    expect(checkedError(() => hostVms({ pid: 1 }), 'argument').message).toContain('runs no VM')
  })

  test('what is refused ends with status 1 and one line, and no stack', () => {
    expect(spawned(['--pid', '4000000'])).toMatchObject({ status: 1, stderr: expect.stringMatching(/^node-kvm: there is no process 4000000.*\n$/) })
  })

  test('a process that ends meanwhile is told', async (context) => {
    needsAll(context)
    const other = await Target.start()
    await other.do('slots', { count: 1, size: 64 * KiB })
    const found = hostVms({ pid: other.pid })[0] as HostVm
    await other.end()
    for (const look of [() => tables(found), () => translate(found, base), () => found.summary()])
      expect(checkedError(look, 'closed').message).toContain('gone')
    expect(checkedError(() => hostVms({ pid: other.pid }), 'argument').message).toContain('there is no process')
  })
})

test('VMs that end while they are read are rows that say so, or none, and no exception', async (context) => {
  needsAll(context)
  const ending = new Worker(
    `const { parentPort } = require('node:worker_threads')
    import(${library}).then(({ Kvm, Mapping }) => {
      const kvm = Kvm.open(), mapping = Mapping.anonymous(4096)
      parentPort.postMessage('begun')
      const next = () => {
        const vm = kvm.createVm()
        const slots = Array.from({ length: 100 }, (_, index) => vm.memslots.create({ gpa: index * 8192, mapping }))
        for (const slot of slots) slot.move(slot.gpa + 4096)
        vm.close()
        setImmediate(next)
      }
      next()
    })`,
    { eval: true }
  )
  try {
    await once(ending, 'message')
    let rows = 0
    let ended = 0
    for (let round = 0; round < 300; round++)
      for (const { pid, evidence } of hostVms()) {
        if (pid !== process.pid) continue
        rows++
        if (evidence.missing.includes('it ended while it was read')) ended++
        else if (!evidence.torn) expect(evidence.missing).toEqual([])
      }
    console.log(`${rows} rows, of which ${ended} ended while they were read`)
    expect(rows).toBeGreaterThan(0)
  } finally {
    await ending.terminate()
  }
})

describe('other namespaces and less privilege', () => {
  const _outside = 'needs util-linux, which the lab has not; what is tested is the same in every lane'

  test('a VM in another pid namespace is told by its number here, and its number there is explained', async (context) => {
    needsAll(context)
    const other = await Target.start(['unshare', '--pid', '--fork', '--kill-child'])
    try {
      const { slots } = await other.do('slots', { count: 1, size: 64 * KiB })
      const children = readFileSync(`/proc/${other.pid}/task/${other.pid}/children`, 'utf8').trim().split(' ').map(Number)
      const found = hostVms({ pid: children[0] as number })[0] as HostVm
      expect(found).toMatchObject({ pid: children[0], memslots: slots })
      expect(tables(found).evidence).toMatchObject({ source: 'bpf', host: 'pagemap' })
      const inside = spawned(['--pid', String(children[0])], ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'])
      expect(inside).toMatchObject({ status: 1, stderr: expect.stringContaining('in another pid namespace it has another number') })
    } finally {
      await other.end()
    }
  })

  test('/proc of another pid namespace is not read as ours: the own process is told from its own folder, and nothing of what stands there is shown of others', (context) => {
    needsAll(context)
    const program = `
      import { spawn } from 'node:child_process'
      const mapping = Mapping.anonymous(64 * KiB), vm = Kvm.open().createVm()
      vm.memslots.create({ gpa: 0, mapping })
      mapping.fill(1)
      const [own] = hostVms({ pid: process.pid })
      console.log(own.memslots[0].backing, own.command.includes('node'), tables(vm).evidence.host, readPagemap(mapping.address)[0].present)
      const child = spawn('sleep', ['1000'])
      console.log(errorOf(() => readPagemap(0, 1, child.pid)))
      console.log(errorOf(() => hostVms({ pid: child.pid })))
      console.log(hostVms().unseen.join())
      child.kill()`
    const [own, page, other, unseen] = outputOf(program, { shell: 'exec unshare --pid --fork --kill-child "$0" "$@"' })
    expect(own).toBe('anonymous true pagemap true')
    expect(page).toMatch(/^unavailable \| .*\/proc is that of another PID namespace/)
    expect(other).toMatch(/^argument \| .*runs no VM/)
    expect(unseen).toBe('VMs of processes outside of this PID namespace are not seen: run it outside (a container: start it with --pid=host)')
  })

  test('without BPF, and with /proc of another pid namespace, nothing is said to run no VM', (context) => {
    needsAll(context)
    const program = `
      import { spawn } from 'node:child_process'
      const child = spawn('sleep', ['1000'])
      console.log(errorOf(() => hostVms({ pid: child.pid })))
      console.log(hostVms().unseen.join())
      child.kill()`
    const [other, unseen] = outputOf(program, {
      shell: 'exec unshare --pid --fork --kill-child setpriv --bounding-set=-bpf,-perfmon,-sys_admin "$0" "$@"'
    })
    expect(other).toMatch(/^unavailable \| .*is not seen: \/proc is that of another PID namespace/)
    expect(unseen).toContain('VMs of other processes are not seen: /proc is that of another PID namespace')
  })

  test('root without CAP_BPF and CAP_PERFMON is told so, and sees who runs VMs', async (context) => {
    needsAll(context)
    await target.do('slots', { count: 1, size: 64 * KiB })
    await target.do('guest')
    const weaker = ['setpriv', '--bounding-set=-bpf,-perfmon,-sys_admin']
    const { stdout, status } = spawned(['--json'], weaker)
    expect(status).toBe(0)
    const found = JSON.parse(stdout).vms.find(({ pid }: any) => pid === target.pid)
    expect(found).toMatchObject({
      vcpus: 1,
      slots: [],
      evidence: { source: 'procfs', missing: [expect.stringContaining('no CAP_BPF and no CAP_PERFMON')] }
    })
    expect(spawned([], weaker).stdout).toMatch(new RegExp(`^ +${target.pid} +1 +\\? +\\? +node`, 'm'))
    const one = spawned(['--pid', String(target.pid), '--gpa', '0'], weaker)
    expect(one).toMatchObject({ status: 1, stderr: expect.stringMatching(/setpriv .*--ambient-caps .*\+perfmon,\+bpf/) })
  })

  test('CAP_BPF and CAP_PERFMON alone are enough for memslots and second stage', async (context) => {
    needsAll(context)
    const { slots } = await target.do('slots', { count: 2, size: 64 * KiB })
    await target.do('guest')
    await target.do('touchAll')
    const capabilities = '+bpf,+perfmon'
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', `--inh-caps=${capabilities}`, `--ambient-caps=${capabilities}`]
    const { stdout, stderr, status } = spawned(['--pid', String(target.pid), '--gpa', String(base), '--json'], user)
    if (stderr.includes('EACCES: permission denied')) skip(context, 'another user may not read this folder, or that of the Node binary')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const [found] = JSON.parse(stdout).vms
    expect(found.slots.slice(0, 2)).toMatchObject(slots)
    expect(found.translation).toMatchObject({
      hva: slots[0].hva,
      hpa: null,
      agrees: null,
      secondStage: { present: true },
      evidence: { source: 'bpf', secondStage: 'bpf', host: null, missing: [expect.stringContaining('pagemap: EACCES')] }
    })
  })

  test('another user without any is told what is missing, and sees no more than that', (context) => {
    needsAll(context)
    const user = { uid: 65534, gid: 65534 }
    const { stdout, stderr, status, error } = spawned(['--json'], [], user)
    if (error || stderr.includes('EACCES: permission denied')) skip(context, 'another user may not read this folder, or that of the Node binary')
    expect(status).toBe(0)
    const hidden = /^whether \d+ processes of other users run VMs is hidden \(.*\): no CAP_BPF and no CAP_PERFMON/
    expect(JSON.parse(stdout)).toMatchObject({ vms: [], unseen: [expect.stringMatching(hidden)] })
    expect(spawned([], [], user).stdout).toMatch(/^no VM is seen here\n.*note: whether \d+ processes of other users/)
    const one = spawned(['--pid', String(target.pid)], [], user)
    expect(one).toMatchObject({ status: 1, stderr: expect.stringContaining("it is another user's, and no CAP_BPF and no CAP_PERFMON") })
  })
})

describe('the picture', () => {
  test('an axis leaves out what nothing uses, keeps order, and makes nothing too small', () => {
    const ranges = [
      { start: 0, end: 64 * KiB },
      { start: 256 * MiB, end: 512 * MiB },
      { start: 2 ** 40, end: 2 ** 40 + 4 * KiB }
    ]
    const { parts, place } = layAxis(ranges, 100, 1100)
    expect(parts).toHaveLength(3)
    for (const { from, to } of parts) expect(to - from).toBeGreaterThanOrEqual(9.99)
    expect(place(0)).toBe(100)
    expect(parts.at(-1)?.to).toBeCloseTo(1100)
    const order = [0, 64 * KiB, 256 * MiB, 300 * MiB, 512 * MiB, 2 ** 40, 2 ** 40 + 4 * KiB].map(place)
    expect(order).toEqual(order.toSorted((left, right) => left - right))
  })
  test('an axis may be of nothing, and of far too many parts', () => {
    expect(layAxis([], 100, 1100).place(5)).toBe(100)
    const scattered = Array.from({ length: 5000 }, (_, index) => ({ start: index * 64 * KiB, end: index * 64 * KiB + 4 * KiB }))
    const { parts } = layAxis(scattered, 100, 1100)
    expect(parts.length).toBeLessThanOrEqual(60)
    expect(parts.at(-1)?.to).toBeLessThanOrEqual(1100.01)
  })
  test('labels do not lie over each other, and the weightier one stays', () => {
    const label = (at: number, weight: number) => ({ at, width: 50, text: String(at), weight })
    expect(fitLabels([label(0, 1), label(20, 2), label(80, 1), label(990, 9)], 1000).map(({ at }) => at)).toEqual([20, 80])
  })
})

test(`the second stage is called by its name here: ${describeHost().mmu}`, async (context) => {
  needsAll(context)
  await target.do('slots', { count: 1, size: 64 * KiB })
  const names: Record<string, string> = { ept: 'EPT', npt: 'NPT', shadow: 'shadow pages' }
  expect(await one('--gpa', String(base))).toContain(`GPA -> HPA  ${names[describeHost().mmu]} `)
})
