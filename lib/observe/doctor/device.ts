/** Checks whether this process may open /dev/kvm, and finds the reason if it may not. */

import { closeSync, existsSync, openSync, type Stats, statSync } from 'node:fs'
import { release } from 'node:os'
import { readOptional } from '../../abi/procfs.js'
import { quoted } from '../../abi/text.js'
import { containerKind, inOwnNamespace } from '../privileges.js'
import { checkDenied } from './device-access.js'
import { byRoot, type Finding, found, lacking, type Situation } from './finding.js'

const path = '/dev/kvm'
const name = path
/** makedev(10, 232): KVM_MINOR among the miscellaneous devices (include/linux/miscdevice.h). */
const kvmNumber = (10 << 8) | 232
const passOn = `start the container with --device ${path}, as in: docker run --device ${path} ...`

/** Checks the device with Node alone, without the add-on. */
export function checkDevice(_: Situation): Finding {
  let device: Stats | null
  try {
    device = statSync(path)
  } catch {
    device = null
  }
  if (!device) return isServed() ? notPassedOn('is not here') : checkUnserved(`${path} is not here`)
  if (!device.isCharacterDevice() || device.rdev !== kvmNumber) return notPassedOn('is another file than the device')
  try {
    closeSync(openSync(path, 'r+'))
    return found(name, 'opens')
  } catch (error) {
    return explain((error as NodeJS.ErrnoException).code ?? 'EIO', device)
  }
}

function explain(errno: string, device: Stats): Finding {
  if (errno === 'EACCES') return checkDenied(device)
  if (errno === 'EPERM') return refusedByCgroup()
  if (errno === 'EMFILE' || errno === 'ENFILE')
    return lacking(name, `${errno}: no more files can be opened`, { remedy: 'ulimit -n $(ulimit -H -n)', price: 'for this shell' })
  return isServed()
    ? lacking(name, `opening it gives ${errno}`, { advice: 'the kernel log says more: sudo dmesg | grep -i kvm' })
    : checkUnserved(`opening ${path} gives ${errno}`)
}

/** Whether the kernel has KVM, wherever the device is. */
const isServed = () => /^\s*232 kvm$/m.test(readOptional('/proc/misc') ?? '') || existsSync('/sys/class/misc/kvm')

function notPassedOn(how: string): Finding {
  const container = containerKind()
  if (container !== null)
    return lacking(name, `${path} ${how}: this container (${container}) was not given it, though the kernel has KVM`, { advice: passOn })
  if (inOwnNamespace('user'))
    return lacking(name, `${path} ${how}: this sandbox has a /dev of its own, and was not given it`, {
      advice: `bind the host's ${path} into it (bubblewrap: --dev-bind ${path} ${path})`
    })
  return lacking(
    name,
    `${path} ${how}, though the kernel has KVM`,
    byRoot(
      `rm -rf ${path} && mknod -m 600 ${path} c 10 232`,
      'the device then belongs to root, with mode 0600; udev would have given it to the group kvm'
    )
  )
}

const flagsOf = () => new Set(/^flags\s*:(.*)$/m.exec(readOptional('/proc/cpuinfo') ?? '')?.[1]?.match(/\S+/g) ?? [])

/** For a kernel without KVM: the module is missing, or the processor lacks virtualization. */
function checkUnserved(what: string): Finding {
  const flags = flagsOf()
  const [feature, module] = flags.has('vmx') ? ['VT-x', 'kvm_intel'] : flags.has('svm') ? ['SVM', 'kvm_amd'] : [null, null]
  if (feature === null) return withoutProcessor(what, flags)
  const loading = `modprobe ${module}`
  if (containerKind() !== null || inOwnNamespace('user'))
    return lacking(name, `${what}: the kernel has no KVM loaded, though the processor has ${feature}`, {
      advice: `outside of this container: sudo ${loading}; then ${passOn}`
    })
  if (!hasModule(module.replace('_', '-')))
    return lacking(name, `${what}: the processor has ${feature}, but this kernel (${release()}) has no module ${module}`, {
      advice: `install the package that has the kernel's modules (Ubuntu: linux-modules-extra-${release()}), or a kernel with CONFIG_${module.toUpperCase()}`
    })
  return lacking(
    name,
    `${what}: ${module} is not loaded, though the processor has ${feature}`,
    byRoot(loading, `until the next boot; to load it at each: echo ${module} > /etc/modules-load.d/kvm.conf`)
  )
}

function withoutProcessor(what: string, flags: Set<string>): Finding {
  if (flags.size === 0)
    return lacking(name, `${what}, and /proc/cpuinfo does not say what the processor supports`, byRoot('mount -t proc proc /proc'))
  if (flags.has('hypervisor'))
    return lacking(name, `${what}: this is a VM, and its hypervisor hides VT-x and SVM from it`, {
      advice:
        'turn nested virtualization on outside of this VM (KVM: kvm_intel or kvm_amd with nested=1, and -cpu host); clouds have types of machine with it'
    })
  return lacking(name, `${what}: the processor shows neither VT-x (vmx) nor SVM (svm)`, {
    advice: 'turn on VT-x (also: Intel Virtualization Technology) or SVM (also: AMD-V) in the firmware setup, then power off and on'
  })
}

function hasModule(file: string): boolean {
  const folder = `/lib/modules/${release()}`
  return ['modules.dep', 'modules.builtin'].some((list) => readOptional(`${folder}/${list}`)?.includes(`/${file}.ko`))
}

/**
 * open(2) gives EPERM although the mode allows access: the device cgroup (admin-guide/cgroup-v1/devices.rst), or in version 2 a BPF program, refuses
 * it.
 */
function refusedByCgroup(): Finding {
  const detail = 'EPERM: the device cgroup of this container or service refuses it, whatever the mode'
  const groups = readOptional('/proc/self/cgroup') ?? ''
  const allow = `/sys/fs/cgroup/devices${/^\d+:devices:(.*)$/m.exec(groups)?.[1] ?? ''}/devices.allow`
  if (existsSync(allow)) return lacking(name, detail, byRoot(`echo 'c 10:232 rw' > ${quoted(allow)}`, 'for every process of that cgroup'))
  const unit = /^0::.*\/([^/]+\.(?:service|scope))(?:\/|$)/m.exec(groups)?.[1]
  if (containerKind() === null && unit)
    return lacking(
      name,
      detail,
      byRoot(
        `systemctl set-property --runtime ${quoted(unit)} ${quoted(`DeviceAllow=${path} rw`)}`,
        'until the next boot, for every process of that unit'
      )
    )
  return lacking(name, detail, { advice: passOn })
}
