import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { finding, MountNamespace, needsDevice, needsRestricting, nobody, remedyOf } from '../support/restricted.js'
import { skip } from '../support/skip.js'

/** A group for which this machine has no name, and a separate device in place of /dev/kvm. */
const group = 64_999
const device = (owner: string, mode: string) => `mknod kvm c 10 232 && chown ${owner} kvm && chmod ${mode} kvm && mount --bind kvm /dev/kvm`
/** Puts a copy of /etc, which may be changed, in place of /etc. */
const kvmGroup = (members = '') => `mkdir etc && cp -a /etc/. etc/ && echo 'kvm:x:${group}:${members}' >> etc/group && mount --bind etc /etc`
const member = [...nobody.slice(0, 3), '--regid', '65534', '--groups', String(group)]

describe('a device that this user may not open', () => {
  beforeEach((context) => {
    needsRestricting(context)
    needsDevice(context)
  })

  test('belongs to root alone: joining a group is not advised, and the command that is lets the user in', async () => {
    using host = await MountNamespace.with(device('0:0', '600'))
    const before = host.truthful()
    expect(finding(before, '/dev/kvm').detail).toContain('EACCES: it belongs to user 0, group root, mode 0600')
    expect(remedyOf(before, '/dev/kvm')).not.toContain('usermod')
    host.shell(remedyOf(before, '/dev/kvm'))
    expect(host.truthful()).toMatchObject({ ok: true })
  })

  test('belongs to root alone, where this user is in a group kvm: the group is given the device', async () => {
    using host = await MountNamespace.with(`${kvmGroup('nobody')} && ${device('0:0', '600')}`)
    const before = host.truthful(member)
    expect(remedyOf(before, '/dev/kvm')).toContain('chgrp kvm /dev/kvm')
    host.shell(remedyOf(before, '/dev/kvm'))
    expect(host.truthful(member)).toMatchObject({ ok: true })
    expect(host.truthful(nobody)).toMatchObject({ ok: false })
  })

  test('belongs to a group that the user is not in: usermod is advised, and a shell that has it at once', async () => {
    using host = await MountNamespace.with(`${kvmGroup()} && ${device(`0:${group}`, '660')}`)
    const before = host.truthful()
    expect(finding(before, '/dev/kvm').detail).toContain('group kvm, mode 0660, and nobody is not in that group')
    const [joining = '', shell = ''] = remedyOf(before, '/dev/kvm').split(' && newgrp')
    host.shell(joining)
    expect(finding(host.doctorInShellOf(`newgrp${shell}`, nobody), '/dev/kvm')).toMatchObject({ ok: true })
  })

  test('belongs to a group that the user was added to after this session began: a new login is advised, or newgrp', async () => {
    using host = await MountNamespace.with(`${kvmGroup('nobody')} && ${device(`0:${group}`, '660')}`)
    const before = host.truthful()
    expect(finding(before, '/dev/kvm').detail).toContain('nobody is in that group, but this session began before')
    expect(finding(host.doctorInShellOf(remedyOf(before, '/dev/kvm'), nobody), '/dev/kvm')).toMatchObject({ ok: true })
    expect(host.truthful(member)).toMatchObject({ ok: true })
    const stuck = finding(host.doctor([...nobody, '--no-new-privs']), '/dev/kvm')
    expect(stuck).toMatchObject({ ok: false, advice: 'log in again' })
    expect(stuck.remedy).toBeUndefined()
  })

  test('is on a mount without devices: the mount is named, and let to have them', async () => {
    using host = await MountNamespace.with(`mkdir dev && mount -t tmpfs -o nodev tmpfs dev && cd dev && ${device('0:0', '666')}`)
    const before = host.truthful()
    expect(finding(before, '/dev/kvm').detail).toContain('/dev/kvm is mounted with nodev')
    host.shell(remedyOf(before, '/dev/kvm'))
    expect(host.truthful()).toMatchObject({ ok: true })
  })

  test("is seen from a user namespace, whose root is not the host's, and is usable outside it", async () => {
    using host = await MountNamespace.with(device('0:0', '600'))
    const inside = finding(host.truthful([...nobody, 'unshare', '-r']), '/dev/kvm')
    expect(inside.detail).toContain('as seen from this user namespace')
    expect(inside.remedy).toBeUndefined()
    host.shell('chmod 666 /dev/kvm')
    expect(host.truthful([...nobody, 'unshare', '-r'])).toMatchObject({ ok: true })
  })

  test('is refused by the device cgroup with EPERM, and the cgroup is told to allow it', async (context) => {
    if (!/^\d+:devices:\/$/m.test(readFileSync('/proc/self/cgroup', 'utf8')))
      return skip(context, 'no device cgroup of version 1 here, whose root this process is in; in version 2 it is a program that only root may load')
    using host = await MountNamespace.with(device('0:0', '666'))
    const cgroup = '/sys/fs/cgroup/devices/node-kvm-doctor-test'
    host.shell(`mkdir ${cgroup} && echo 'c 10:232 rwm' > ${cgroup}/devices.deny`)
    try {
      const there = ['sh', '-c', `echo $$ > ${cgroup}/cgroup.procs && exec "$@"`, 'sh', ...nobody]
      const before = host.truthful(there)
      expect(finding(before, '/dev/kvm').detail).toContain('EPERM: the device cgroup')
      host.shell(remedyOf(before, '/dev/kvm'))
      expect(host.truthful(there)).toMatchObject({ ok: true })
    } finally {
      host.shell(`rmdir ${cgroup}`)
    }
  })
})

/** A root without the marks of a container, with files of /proc that say what other machines' files say. No command that a test may run can change
 * this: it concerns modules, firmware, hypervisors. So the test checks only what the doctor says of each. */
describe('a device that is not there', () => {
  beforeEach(needsRestricting)
  const withoutMarks =
    'mkdir root && for entry in /*; do test -d $entry && test ! -L $entry && mkdir root$entry && mount --rbind $entry root$entry; test -L $entry && cp -a $entry root/; done; mount -t tmpfs -o dev tmpfs root/dev && for entry in null urandom zero; do cp -a /dev/$entry root/dev/; done; mount -t tmpfs tmpfs root/run'
  const inRoot = (host: MountNamespace, ...who: string[]) => ['chroot', `${host.folder}/root`, ...who]
  const fake = (text: string, path: string) =>
    `printf '${text}' > fake-${path.replaceAll('/', '-')} && mount --bind fake-${path.replaceAll('/', '-')} root/proc/${path}`
  const flags = (...words: string[]) => fake(`vendor_id : GenuineIntel\\nflags : fpu ${words.join(' ')}\\n`, 'cpuinfo')
  const notServed = `${fake('232 none\\n', 'misc')} && mkdir sysfs && mount -t tmpfs tmpfs root/sys`

  test('is made by mknod where the kernel has KVM', async (context) => {
    needsDevice(context)
    using host = await MountNamespace.with(withoutMarks)
    const who = inRoot(host)
    const before = host.truthful(who)
    expect(finding(before, '/dev/kvm').detail).toBe('/dev/kvm is not here, though the kernel has KVM')
    host.run([...who, 'sh', '-c', remedyOf(before, '/dev/kvm')])
    expect(host.truthful(who)).toMatchObject({ ok: true })
    const device = join(host.folder, 'root', 'dev/kvm')
    host.shell(`rm ${device} && mkdir ${device}`)
    const other = host.truthful(who)
    expect(finding(other, '/dev/kvm').detail).toContain('is another file than the device')
    host.run([...who, 'sh', '-c', remedyOf(other, '/dev/kvm')])
    expect(host.truthful(who)).toMatchObject({ ok: true })
  })

  test('must be given to a container, where no module is loaded', async (context) => {
    needsDevice(context)
    using host = await MountNamespace.with(`${withoutMarks}; touch root/.dockerenv`)
    const { detail, advice, remedy } = finding(host.truthful(inRoot(host)), '/dev/kvm')
    expect(detail).toContain('this container (docker) was not given it')
    expect(advice).toContain('docker run --device /dev/kvm')
    expect(remedy).toBeUndefined()
  })

  test.for([
    ['no VT-x, on the machine itself', flags(), 'the processor shows neither VT-x (vmx) nor SVM (svm)', 'firmware setup'],
    ['no VT-x, in a VM', flags('hypervisor'), 'its hypervisor hides VT-x and SVM', 'nested virtualization'],
    ['VT-x, no such module', flags('vmx'), 'has no module kvm_intel', 'linux-modules-extra'],
    ['SVM, no such module', flags('svm'), 'has no module kvm_amd', 'CONFIG_KVM_AMD'],
    [
      'VT-x, in a container',
      `${flags('vmx')} && touch root/.dockerenv`,
      'the kernel has no KVM loaded',
      'outside of this container: sudo modprobe kvm_intel'
    ]
  ] as const)('is told with advice: %s', async ([, preparation, why, what]) => {
    using host = await MountNamespace.with(`${withoutMarks}; ${notServed} && ${preparation}`)
    const { ok, detail, advice, remedy } = finding(host.truthful(inRoot(host)), '/dev/kvm')
    expect({ ok, detail, advice, remedy }).toEqual({
      ok: false,
      detail: expect.stringContaining(why),
      advice: expect.stringContaining(what),
      remedy: undefined
    })
  })

  test('comes by modprobe where there is VT-x and a module that is not loaded', async () => {
    const modules = 'mkdir -p modules/$(uname -r) && echo kernel/arch/x86/kvm/kvm-intel.ko.xz: > modules/$(uname -r)/modules.dep'
    const mounted = `{ test -d root/lib/modules || mkdir root/lib/modules; } && mount --bind modules root/lib/modules`
    const own = 'mkdir lib && mount -t overlay -o lowerdir=/lib,upperdir=$(pwd)/upper,workdir=$(pwd)/work overlay root/lib'
    using host = await MountNamespace.with(
      `${withoutMarks}; ${notServed} && ${flags('vmx')} && ${modules} && mkdir upper work && { test -L root/lib || ${own}; } && ${mounted}`
    )
    expect(remedyOf(host.truthful(inRoot(host)), '/dev/kvm')).toBe('modprobe kvm_intel')
  })
})
