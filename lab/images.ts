/** The images from which a guest boots: a kernel, an initramfs, and for Bochs a CD with both; and the disk with Node and the tools. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { archive, executable, folder, link } from './archive.js'
import { entry } from './cache.js'
import { command } from './command.js'
import { makeDisk } from './disk.js'
import { init, nodeKvm } from './guest.js'
import type { Kernel } from './lanes.js'
import { copyLibraries, findProgram, type Library, libraries, stamp, withLibcParts } from './libraries.js'
import { Modules } from './modules.js'
import { kernelPackage, packages, packagesWithLibraries, unpackedProgram } from './packages.js'
import { reseedProgram } from './reseed.js'

/** The drivers for both emulators' disks, and both KVM modules: one initramfs serves every lane. */
const wanted = { virtio: ['virtio_pci', 'virtio_blk'], ata: ['ata_piix', 'sd_mod'], kvm_intel: ['kvm_intel'], kvm_amd: ['kvm_amd'] }
const initFolders = ['bin', 'dev', 'proc', 'sys', 'base', 'modules']
const initPrograms = [
  'sh',
  'mount',
  'umount',
  'cat',
  'echo',
  'insmod',
  'stty',
  'sleep',
  'mkdir',
  'mkfifo',
  'blockdev',
  'chroot',
  'date',
  'poweroff',
  'reboot',
  'dmesg',
  'ifconfig',
  'hostname',
  'sync',
  '[',
  'readlink',
  'kill'
]

export const findBusybox = async () => join(await packages('bookworm', ['busybox-static']), 'root/bin/busybox')

export interface Boot {
  kernel: string
  initramfs: string
}

/** The kernel and initramfs of one kernel package. */
export async function bootFiles({ suite, metapackage }: Kernel): Promise<Boot> {
  const name = await kernelPackage(suite, metapackage)
  const root = join(await packages(suite, [name]), 'root')
  const busybox = await findBusybox()
  const made = await entry('boot', { name, init, wanted, initPrograms, form: 2 }, async (target) => {
    const image = readdirSync(join(root, 'boot')).find((file) => file.startsWith('vmlinuz')) as string
    copyFileSync(join(root, 'boot', image), join(target, 'vmlinuz'))
    const modules = new Modules(root, busybox)
    const files = [
      ...initFolders.map(folder),
      executable('init', init),
      executable('bin/busybox', readFileSync(busybox)),
      executable('bin/reseed', reseedProgram()),
      ...initPrograms.map((program) => link(`bin/${program}`, 'busybox'))
    ]
    const all = new Set<string>()
    const scratch = join(target, 'scratch')
    mkdirSync(scratch)
    for (const [list, names] of Object.entries(wanted)) {
      const order: string[] = []
      for (const module of names) await modules.order(module, scratch, order)
      files.push(executable(`modules/${list}.order`, `${order.join('\n')}\n`))
      for (const module of order) all.add(module)
    }
    for (const module of all) files.push(executable(`modules/${module}.ko`, modules.data(module)))
    writeFileSync(join(target, 'initramfs'), archive(files))
    rmSync(scratch, { recursive: true })
  })
  return { kernel: join(made, 'vmlinuz'), initramfs: join(made, 'initramfs') }
}

/** A CD that starts the kernel: Bochs can load a kernel in no other way. */
export async function bootCd(boot: Boot, kernelArguments: string): Promise<string> {
  const loader = await packages('trixie', ['isolinux', 'syslinux-common'])
  const writer = await packagesWithLibraries('trixie', ['xorriso'])
  const made = await entry('cd', { boot: boot.kernel, kernelArguments, form: 1 }, async (target) => {
    const content = join(target, 'content')
    mkdirSync(join(content, 'isolinux'), { recursive: true })
    copyFileSync(join(loader, 'root/usr/lib/ISOLINUX/isolinux.bin'), join(content, 'isolinux/isolinux.bin'))
    copyFileSync(join(loader, 'root/usr/lib/syslinux/modules/bios/ldlinux.c32'), join(content, 'isolinux/ldlinux.c32'))
    copyFileSync(boot.kernel, join(content, 'vmlinuz'))
    copyFileSync(boot.initramfs, join(content, 'initrd'))
    writeFileSync(
      join(content, 'isolinux/isolinux.cfg'),
      `default lab\nprompt 0\ntimeout 0\nlabel lab\n  kernel /vmlinuz\n  initrd /initrd\n  append ${kernelArguments}\n`
    )
    const [program, ...start] = unpackedProgram(writer, 'usr/bin/xorriso') as [string, ...string[]]
    await command(program, [
      ...start,
      '-as',
      'mkisofs',
      '-quiet',
      '-o',
      join(target, 'boot.iso'),
      '-b',
      'isolinux/isolinux.bin',
      '-c',
      'isolinux/boot.cat',
      '-no-emul-boot',
      '-boot-load-size',
      '4',
      '-boot-info-table',
      content
    ])
    rmSync(content, { recursive: true })
  })
  return join(made, 'boot.iso')
}

const baseFolders = ['bin', 'dev', 'proc', 'sys', 'tmp', 'run', 'root', 'etc', 'lab', 'results', 'modules', 'usr/bin', 'usr/local/bin', 'var']
const accounts = {
  passwd: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n',
  group: 'root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n',
  hosts: '127.0.0.1 localhost lab\n'
}

/** The disk with the guest's root: this Node with its libraries, busybox for the rest, and GNU as for assemble(). */
export async function baseDisk(): Promise<string> {
  const busybox = await findBusybox()
  const tools = ['as', 'ld', 'objcopy'].map(findProgram).filter((path) => path !== null)
  const needed: Library[] = withLibcParts(await libraries([process.execPath, ...tools]))
  const made = await entry(
    'base',
    { needed, node: stamp(process.execPath), tools: tools.map(stamp), busybox, nodeKvm, accounts, form: 3 },
    async (target) => {
      const root = join(target, 'root')
      for (const name of baseFolders) mkdirSync(join(root, name), { recursive: true })
      for (const [name, text] of Object.entries(accounts)) writeFileSync(join(root, 'etc', name), text)
      copyFileSync(busybox, join(root, 'bin/busybox'))
      const programs = await command(busybox, ['--list'])
      for (const program of programs.split('\n').filter((name) => name && name !== 'busybox')) symlinkSync('busybox', join(root, 'bin', program))
      // The first lines of scripts name this path.
      symlinkSync('/bin/env', join(root, 'usr/bin/env'))
      copyFileSync(process.execPath, join(root, 'usr/local/bin/node'))
      tools.forEach((path, index) => copyFileSync(path, join(root, 'usr/bin', ['as', 'ld', 'objcopy'][index] as string)))
      writeFileSync(join(root, 'usr/local/bin/node-kvm'), nodeKvm, { mode: 0o755 })
      copyLibraries(needed, root)
      await makeDisk(join(target, 'base.img'), root, { label: 'lab-base' })
      rmSync(root, { recursive: true })
    }
  )
  return join(made, 'base.img')
}
