// Reads the VM of another program: the answers of QEMU's own monitor about its memory are the truth to compare with.

import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { type HostVm, hostVms, tables, translate } from 'node-kvm/observe'
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest'
import { prepareQemu } from '../../lab/qemu.js'
import { tryReading } from '../../lib/observe/tables/reader.js'
import { commandLine } from '../support/built.js'
import { canRunVms, needsFrames, needsKvm } from '../support/needs.js'
import { patience } from '../support/patience.js'
import { Qemu } from '../support/qemu.js'
import { skip } from '../support/skip.js'

let qemu: Qemu | undefined
let why = ''

beforeAll(async () => {
  if (!canRunVms) return
  let unpacked: string
  try {
    unpacked = await prepareQemu()
  } catch (error) {
    why = `there is no QEMU: ${(error as Error).message}`
    return
  }
  qemu = await Qemu.start(unpacked, '256')
}, 300_000)
afterAll(() => qemu?.end())

function running(context: TestContext): Qemu {
  needsKvm(context)
  if (!qemu) skip(context, why)
  const refused = tryReading()
  if (refused) skip(context, `VMs cannot be read from outside: ${refused}`)
  needsFrames(context)
  return qemu
}

const number = (text: string | undefined) => Number.parseInt(text ?? '', 16)

/** RAM and ROM from `info mtree -f`: the memory that the guest's processor sees at physical addresses. */
async function memoryOf(monitor: Qemu) {
  const views = (await monitor.monitor('info mtree -f')).split('FlatView')
  const view = views.find((text) => text.includes('AS "memory"')) ?? ''
  return [...view.matchAll(/^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom|i\/o|romd|ramd)\): (.*)$/gm)].map(
    ([, start, end, kind, name]) => ({
      start: number(start),
      end: number(end) + 1,
      kind: kind as string,
      name: name as string
    })
  )
}
const addressIn = (answer: string) => number(/ is (0x[0-9a-f]+)/.exec(answer)?.[1])

const machineOf = ({ pid }: Qemu): HostVm => hostVms({ pid })[0] as HostVm

test("QEMU's memslots are its RAM and ROM, and lead where its monitor says", async (context) => {
  const monitor = running(context)
  const machine = machineOf(monitor)
  expect(machine).toMatchObject({ vcpus: 1, command: expect.stringContaining('-accel kvm'), evidence: { source: 'bpf', torn: false } })
  const memory = (await memoryOf(monitor)).filter(({ kind }) => kind === 'ram' || kind === 'rom')
  expect(memory.length).toBeGreaterThan(3)
  let compared = 0
  for (const { start, end } of memory)
    for (const gpa of [start, start + Math.floor((end - start) / 2 / 4096) * 4096, end - 4096]) {
      const hva = addressIn(await monitor.monitor(`gpa2hva 0x${gpa.toString(16)}`))
      expect({ gpa, hva: translate(machine, gpa).hva }).toEqual({ gpa, hva })
      compared++
    }
  const covered = machine.memslots.filter(({ addressSpace }) => addressSpace === 0)
  expect(covered.reduce((sum, { size }) => sum + size, 0)).toBe(memory.reduce((sum, { start, end }) => sum + end - start, 0))
  console.log(`${memory.length} ranges of RAM and ROM, ${compared} addresses: all lead to the HVA that QEMU says`)
})

test('what is no memory is MMIO', async (context) => {
  const monitor = running(context)
  const machine = machineOf(monitor)
  const devices = (await memoryOf(monitor)).filter(({ kind }) => kind === 'i/o')
  expect(devices.length).toBeGreaterThan(2)
  for (const { start } of devices) expect(translate(machine, start)).toMatchObject({ gpa: start, slot: null, hva: null, hpa: null })
})

test('every page that the second stage maps is the frame that its monitor says', async (context) => {
  const monitor = running(context)
  const machine = machineOf(monitor)
  const table = tables(machine)
  expect(table).toMatchObject({ disagreeing: 0, evidence: { secondStage: 'bpf', torn: false, lost: 0 } })
  const mapped = Array.from(table.gpa, (gpa, row) => ({ gpa, row })).filter(({ row }) => table.level[row] && table.kind[row] !== 4)
  const resident = Array.from(table.gpa, (gpa, row) => ({ gpa, row })).filter(({ row }) => table.hpa[row])
  expect(mapped.length).toBeGreaterThan(50)
  let compared = 0
  for (const { gpa, row } of [...mapped, ...resident.filter((_, index) => index % Math.ceil(resident.length / 300) === 0)]) {
    const hpa = addressIn(await monitor.monitor(`gpa2hpa 0x${gpa.toString(16)}`))
    expect({ gpa, hpa: table.hpa[row] }).toEqual({ gpa, hpa })
    if (table.secondHpa[row]) expect({ gpa, hpa: table.secondHpa[row] }).toEqual({ gpa, hpa })
    compared++
  }
  console.log(`${compared} pages, ${mapped.length} of them mapped by the second stage: all are the frame that QEMU says`)
})

test('node-kvm trace --pid shows what its firmware does when it runs again', async (context) => {
  const monitor = running(context)
  const kinds = 'spte-set,zap-all,pio,mmio'
  const child = spawn(process.execPath, [commandLine, 'trace', '--pid', String(monitor.pid), '--json', '--kinds', kinds], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part) => (text += part))
  const done = new Promise<number | null>((resolve) => child.once('close', resolve))
  const seen = (kind: string) => text.includes(`"kind":"${kind}"`)
  // The machine is reset again and again, because nothing tells when the command begins to listen. Each time the firmware gets more time to boot as
  // far as these events.
  const isSeen = () => seen('spte-set') && seen('pio')
  for (let wait = 1000; !isSeen() && wait < patience; wait *= 2) {
    await monitor.monitor('system_reset')
    for (const end = Date.now() + wait; !isSeen() && Date.now() < end; ) await sleep(100)
  }
  child.kill('SIGINT')
  expect(await done).toBe(0)
  const events = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(events.at(-1)).toMatchObject({ kind: 'summary' })
  // The number is that of the last reading: the firmware lays out its ROM again after a reset.
  expect(events.at(-1).memslots).toBeGreaterThan(0)
  expect(new Set(events.slice(0, -1).map(({ process }) => process))).toEqual(new Set([monitor.pid]))
  expect(isSeen()).toBe(true)
})
