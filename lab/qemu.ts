/** QEMU without acceleration: an AMD machine with SVM and nested paging. */
import { join } from 'node:path'
import { files, type Images, kernelArguments, type Start } from './emulator.js'
import { packagesWithLibraries, unpackedProgram } from './packages.js'

const names = ['qemu-system-x86', 'seabios']

export const prepareQemu = () => packagesWithLibraries('bookworm', names)

const disk = (path: string, index: number, mode: string) => [
  '-drive',
  `file=${path},if=none,id=disk${index},format=raw,${mode}`,
  '-device',
  `virtio-blk-pci,drive=disk${index}`
]

export async function startQemu(images: Images, folder: string): Promise<Start> {
  const unpacked = await prepareQemu()
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].flatMap((place) => ['-L', join(unpacked, 'root', place)])
  const words = [
    ...unpackedProgram(unpacked, 'usr/bin/qemu-system-x86_64'),
    ...firmware,
    '-M',
    'q35',
    '-accel',
    'tcg',
    '-cpu',
    'max,+svm,+npt',
    '-m',
    '1024',
    '-smp',
    '1',
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
    '-net',
    'none',
    '-kernel',
    images.kernel,
    '-initrd',
    images.initramfs,
    '-append',
    kernelArguments('virtio'),
    '-serial',
    `file:${join(folder, files.console)}`,
    '-serial',
    `file:${join(folder, files.output)}`,
    // The shared images are opened for reading alone, so that runs do not lock each other out.
    ...disk(images.base, 0, 'readonly=on'),
    ...disk(images.run, 1, 'cache=unsafe'),
    ...disk(images.modules, 2, 'readonly=on')
  ]
  return { words, env: { ...process.env, QEMU_MODULE_DIR: join(unpacked, 'root/usr/lib/x86_64-linux-gnu/qemu') } }
}
