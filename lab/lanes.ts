/** The emulated machines, each with its emulator, its KVM module and its second stage. */
import { LabError } from './errors.js'

export type Suite = 'bookworm' | 'trixie'

export interface Lane {
  name: string
  emulator: 'bochs' | 'qemu'
  /** The driver of the emulator's disks. */
  bus: 'ata' | 'virtio'
  module: 'kvm_intel' | 'kvm_amd'
  /** The arguments of the modules kvm and kvm_intel or kvm_amd. */
  kvmArguments: string
  moduleArguments: string
  says: string
}

export interface Kernel {
  version: string
  suite: Suite
  /** The package that depends on the newest image of this release. */
  metapackage: string
}

const intel = { emulator: 'bochs', bus: 'ata', module: 'kvm_intel' } as const
const amd = { emulator: 'qemu', bus: 'virtio', module: 'kvm_amd' } as const
const shadow = 'tdp_mmu=0'

export const lanes: readonly Lane[] = [
  { name: 'ept', ...intel, kvmArguments: '', moduleArguments: '', says: 'kvm-intel with EPT, under Bochs' },
  { name: 'npt', ...amd, kvmArguments: '', moduleArguments: '', says: 'kvm-amd with NPT, under QEMU' },
  { name: 'ept-shadow', ...intel, kvmArguments: shadow, moduleArguments: 'ept=0', says: 'kvm-intel without EPT: shadow paging on VT-x' },
  { name: 'npt-shadow', ...amd, kvmArguments: shadow, moduleArguments: 'npt=0', says: 'kvm-amd without NPT: shadow paging on SVM' }
]

/** docs/lab.md says how to add one. */
export const kernels: readonly Kernel[] = [
  { version: '6.1', suite: 'bookworm', metapackage: 'linux-image-cloud-amd64' },
  { version: '6.12', suite: 'trixie', metapackage: 'linux-image-cloud-amd64' }
]

export function findLane(name: string): Lane {
  const lane = lanes.find((one) => one.name === name)
  if (!lane) throw new LabError(`there is no lane '${name}'; the lanes are ${lanes.map((one) => one.name).join(', ')}`, 2)
  return lane
}

export function findKernel(version: string): Kernel {
  const kernel = kernels.find((one) => one.version === version)
  if (!kernel) throw new LabError(`there is no kernel '${version}'; the kernels are ${kernels.map((one) => one.version).join(', ')}`, 2)
  return kernel
}
