/** Bochs: an Intel machine with VMX and EPT. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Choices, Emulator, Purpose } from './emulator.js'
import { LabError } from './errors.js'
import { bootCd, findBusybox } from './images.js'
import type { Machine } from './machine.js'
import { connectIn, ownNetwork } from './network.js'
import { packagesWithLibraries, unpackedProgram } from './packages.js'
import { RfbScreen } from './rfb.js'
import { files, type Images, kernelArguments, type Start } from './run-folder.js'

const names = ['bochs', 'bochsbios', 'vgabios']

const cdOf = (boot: { kernel: string; initramfs: string }) => bootCd(boot, kernelArguments('ata'))

interface Settings {
  root: string
  cd: string
  purpose: Purpose
}

/** Each line was found to matter, or to cost time if it is missing: docs/lab.md. */
function settings({ root, cd, purpose }: Settings): string {
  // A saved state includes a copy of each flat image, but of a volatile one only the blocks that were written to it.
  const mode = purpose === 'save' ? 'volatile' : 'flat'
  return [
    // Bochs reads a saved state before the devices would load themselves.
    'plugin_ctrl: biosdev=true, iodebug=true, parallel=true, serial=true, unmapped=true, usb_uhci=true, gameport=true, speaker=false',
    'cpu: model=corei7_haswell_4770, count=1, ips=100000000, ignore_bad_msrs=1, reset_on_triple_fault=0',
    'memory: guest=1024, host=1024',
    `romimage: file=${join(root, 'usr/share/bochs/BIOS-bochs-latest')}`,
    `vgaromimage: file=${join(root, 'usr/share/bochs/VGABIOS-lgpl-latest')}`,
    'display_library: rfb, options="timeout=0"',
    'clock: sync=none, rtc_sync=0',
    `log: ${files.emulator}`,
    'panic: action=fatal',
    'error: action=ignore',
    `info: action=${purpose === 'save' ? 'report' : 'ignore'}`,
    'debug: action=ignore',
    'ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14',
    'ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15',
    `ata0-master: type=disk, path=${files.base}, mode=${mode}`,
    `ata0-slave: type=disk, path=${files.run}, mode=${mode}`,
    `ata1-master: type=disk, path=${files.modules}, mode=${mode}`,
    `ata1-slave: type=cdrom, path=${cd}, status=inserted`,
    'boot: cdrom',
    `com1: enabled=1, mode=file, dev=${files.console}`,
    `com2: enabled=1, mode=file, dev=${files.output}`,
    'port_e9_hack: enabled=1',
    'pci: enabled=1, chipset=i440fx',
    ''
  ].join('\n')
}

async function start(images: Images, purpose: Purpose, { screenOnNetwork = false }: Choices = {}): Promise<Start> {
  const unpacked = await packagesWithLibraries('trixie', names)
  const root = join(unpacked, 'root')
  const text = settings({ root, cd: await cdOf(images), purpose })
  const from =
    purpose === 'restore'
      ? { words: ['-r', files.state], files: { [`${files.state}/config`]: text } }
      : { words: ['-f', 'bochsrc'], files: { bochsrc: text } }
  return {
    words: [...unpackedProgram(unpacked, 'usr/bin/bochs-bin'), '-q', ...from.words, '-rc', 'orders'],
    env: { ...process.env, BXSHARE: join(root, 'usr/share/bochs'), LTDL_LIBRARY_PATH: join(root, 'usr/lib/x86_64-linux-gnu/bochs/plugins') },
    // Debian's program has a debugger, which waits for a command at the start.
    files: { ...from.files, orders: 'c\n' },
    network: screenOnNetwork ? [] : await ownNetwork()
  }
}

/** The save button is the second button from the right of the bar above the screen: Bochs user manual, "The headerbar". */
const saveButton = { fromRight: 48, y: 10 }

/** Makes the screen ask for a folder, and types its name. Returns false when the question was not there yet. */
async function nameFolder(screen: RfbScreen, folder: string, patienceMs: number): Promise<boolean> {
  screen.click(screen.width - saveButton.fromRight, saveButton.y)
  await sleep(patienceMs)
  screen.type(files.state)
  // Bochs writes this file first.
  for (let tries = 0; tries < 40 && !existsSync(join(folder, files.state, 'config')); tries++) await sleep(50)
  return existsSync(join(folder, files.state, 'config'))
}

async function save(machine: Machine): Promise<void> {
  const { folder } = machine
  const port = /listening for connections on port (\d+)/.exec(readFileSync(join(folder, files.emulator), 'utf8'))?.[1]
  if (port === undefined) throw new LabError('Bochs did not say on which port its screen listens')
  const screen = await RfbScreen.open(connectIn(machine.child.pid as number, machine.network, Number(port), await findBusybox()))
  try {
    let saving = false
    for (let patienceMs = 500; !saving && patienceMs <= 4000; patienceMs *= 2) saving = await nameFolder(screen, folder, patienceMs)
    if (!saving) throw new LabError('Bochs was told to save its state and did not')
    // When Bochs has saved, it asks whether to go on; it ends after a no.
    for (let tries = 0; tries < 100 && !machine.closed; tries++) {
      screen.type('n')
      await sleep(200)
    }
    if (!machine.closed) throw new LabError('Bochs did not end after saving its state')
  } finally {
    screen.close()
  }
  fitForRuns(join(folder, files.state))
}

const replaceIn = (path: string, from: string, to: string) => writeFileSync(path, readFileSync(path, 'utf8').replaceAll(from, to))

/** Without this, restoring would write the disks' copies over the images, and report as much as saving had to. */
function fitForRuns(state: string): void {
  replaceIn(join(state, 'hard_drive'), 'image = true', 'image = false')
  replaceIn(join(state, 'logopts'), 'INFO=report', 'INFO=ignore')
  for (const name of readdirSync(state).filter((name) => /^hard_drive\..*\.image$/.test(name))) rmSync(join(state, name))
}

export const bochs: Emulator = {
  name: 'Bochs',
  prepare: async (boot) => {
    await packagesWithLibraries('trixie', names)
    await cdOf(boot)
  },
  start,
  save
}
