/** Bochs: an Intel machine with VMX and EPT. */
import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { files, type Images, kernelArguments, type Start } from './emulator.js'
import { bootCd } from './images.js'
import { packagesWithLibraries, unpackedProgram } from './packages.js'

const names = ['bochs', 'bochsbios', 'vgabios']

export const prepareBochs = () => packagesWithLibraries('trixie', names)

export const prepareCd = (boot: { kernel: string; initramfs: string }) => bootCd(boot, kernelArguments('ata'))

interface Settings {
  root: string
  folder: string
  cd: string
}

/** Each line was found to matter, or to cost time where it is missing: docs/lab.md. */
function settings({ root, folder, cd }: Settings): string {
  const here = (name: string) => join(folder, name)
  return [
    'cpu: model=corei7_haswell_4770, count=1, ips=100000000, ignore_bad_msrs=1, reset_on_triple_fault=0',
    'memory: guest=1024, host=1024',
    `romimage: file=${join(root, 'usr/share/bochs/BIOS-bochs-latest')}`,
    `vgaromimage: file=${join(root, 'usr/share/bochs/VGABIOS-lgpl-latest')}`,
    'display_library: rfb, options="timeout=0"',
    'clock: sync=none, rtc_sync=0',
    `log: ${here(files.emulator)}`,
    'panic: action=fatal',
    'error: action=ignore',
    'info: action=ignore',
    'debug: action=ignore',
    'ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14',
    'ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15',
    `ata0-master: type=disk, path=${here('base.img')}, mode=flat`,
    `ata0-slave: type=disk, path=${here('run.img')}, mode=flat`,
    `ata1-master: type=disk, path=${here('modules.img')}, mode=flat`,
    `ata1-slave: type=cdrom, path=${cd}, status=inserted`,
    'boot: cdrom',
    `com1: enabled=1, mode=file, dev=${here(files.console)}`,
    `com2: enabled=1, mode=file, dev=${here(files.output)}`,
    'port_e9_hack: enabled=1',
    'speaker: enabled=0',
    'pci: enabled=1, chipset=i440fx',
    ''
  ].join('\n')
}

export async function startBochs(images: Images, folder: string): Promise<Start> {
  const unpacked = await prepareBochs()
  const root = join(unpacked, 'root')
  const cd = await prepareCd(images)
  // Bochs puts a lock beside each image: beside a link of this run's own, so that runs do not lock each other out.
  symlinkSync(images.base, join(folder, 'base.img'))
  symlinkSync(images.modules, join(folder, 'modules.img'))
  writeFileSync(join(folder, 'bochsrc'), settings({ root, folder, cd }))
  // Debian's program has a debugger, which waits for an order at the start.
  writeFileSync(join(folder, 'orders'), 'c\n')
  const words = [...unpackedProgram(unpacked, 'usr/bin/bochs-bin'), '-q', '-f', join(folder, 'bochsrc'), '-rc', join(folder, 'orders')]
  return {
    words,
    env: { ...process.env, BXSHARE: join(root, 'usr/share/bochs'), LTDL_LIBRARY_PATH: join(root, 'usr/lib/x86_64-linux-gnu/bochs/plugins') }
  }
}
