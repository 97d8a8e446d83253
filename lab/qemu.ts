/** QEMU without acceleration: an AMD machine with SVM and nested paging. */

import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Emulator, Purpose } from './emulator.js'
import { LabError } from './errors.js'
import type { Machine } from './machine.js'
import { packagesWithLibraries, unpackedProgram } from './packages.js'
import { files, type Images, kernelArguments } from './run-folder.js'

const names = ['qemu-system-x86', 'seabios']

/** The folder in which QEMU is unpacked. */
export const prepareQemu = () => packagesWithLibraries('bookworm', names)
const stateFile = `${files.state}/machine`

const disk = (path: string, index: number, mode: string) => [
  '-drive',
  `file=${path},if=none,id=disk${index},format=raw,${mode}`,
  '-device',
  `virtio-blk-pci,drive=disk${index}`
]

const more: Record<Purpose, string[]> = { run: [], save: ['-qmp', 'stdio'], restore: ['-incoming', `exec:cat ${stateFile}`] }

async function start(images: Images, purpose: Purpose) {
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
    `file:${files.console}`,
    '-serial',
    `file:${files.output}`,
    // If this machine's disk is full, the guest gets an error; without werror the machine would stand still. The shared images are opened read-only,
    // so that runs do not lock each other out.
    ...disk(files.base, 0, 'readonly=on'),
    ...disk(files.run, 1, 'cache=unsafe,werror=report'),
    ...disk(files.modules, 2, 'readonly=on'),
    ...more[purpose]
  ]
  return {
    words,
    env: { ...process.env, QEMU_MODULE_DIR: join(unpacked, 'root/usr/lib/x86_64-linux-gnu/qemu') },
    files: {},
    monitor: purpose === 'save'
  }
}

/** Migrates the machine into a file while it runs: QEMU's documentation, "QEMU Machine Protocol" and "Migration". */
async function save({ child }: Machine): Promise<void> {
  if (!child.stdin || !child.stdout) throw new LabError('QEMU has no monitor')
  const tell = (execute: string, more: object = {}) => child.stdin?.write(`${JSON.stringify({ execute, arguments: more })}\n`)
  tell('qmp_capabilities')
  tell('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] })
  tell('migrate-set-parameters', { 'max-bandwidth': 2 ** 33 })
  tell('migrate', { uri: `exec:cat >${stateFile}` })
  for await (const line of createInterface({ input: child.stdout })) {
    const { event, data, error } = JSON.parse(line)
    if (error) throw new LabError(`QEMU refuses to save its state: ${error.desc}`)
    if (event === 'MIGRATION' && data.status === 'failed') throw new LabError('QEMU failed to save its state')
    if (event === 'MIGRATION' && data.status === 'completed') {
      tell('quit')
      return
    }
  }
  throw new LabError('QEMU ended before its state was saved')
}

export const qemu: Emulator = {
  name: 'QEMU',
  prepare: async () => {
    await prepareQemu()
  },
  start,
  save
}
