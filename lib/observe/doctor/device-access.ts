/** /dev/kvm that is there and says EACCES: whose it is, who this is, and what brings them together. */

import type { Stats } from 'node:fs'
import { userInfo } from 'node:os'
import { readOptional } from '../../abi/procfs.js'
import { quoted } from '../../abi/text.js'
import { containerKind, gainsNothing, hasCapability, inOwnNamespace, isInstalled } from '../privileges.js'
import { byRoot, type Finding, lacking } from './finding.js'

const path = '/dev/kvm'

interface Group {
  name: string
  gid: number
  members: string[]
}

/** The groups of group(5). A name service may have more, which only the program getent would say. */
const groups = (): Group[] =>
  (readOptional('/etc/group') ?? '').split('\n').map((line) => {
    const [name = '', , gid, members = ''] = line.split(':')
    return { name, gid: Number(gid), members: members.split(',') }
  })

function userName(uid: number): string {
  try {
    return userInfo().username
  } catch {
    return String(uid)
  }
}

const octal = (mode: number) => (mode & 0o777).toString(8).padStart(4, '0')

/** What the mode alone would decide (path_resolution(7), "Permissions"). */
function modeAllows({ uid, gid, mode }: Stats, self: number, own: readonly number[]): boolean {
  const bits = self === uid ? mode >> 6 : own.includes(gid) ? mode >> 3 : mode
  return (bits & 6) === 6 || hasCapability('dac_override')
}

export function checkDenied(device: Stats): Finding {
  const self = process.geteuid?.() ?? 0
  const own = [process.getegid?.() ?? 0, ...(process.getgroups?.() ?? [])]
  const database = groups()
  const group = database.find(({ gid }) => gid === device.gid)
  const what = `EACCES: it belongs to user ${device.uid}, group ${group?.name ?? device.gid}, mode ${octal(device.mode)}`
  if (inOwnNamespace('user'))
    return lacking(path, `${what}, as seen from this user namespace, whose root is not the host's`, {
      advice: 'let the user who made the namespace open it: run node-kvm doctor outside; podman: --device /dev/kvm --group-add keep-groups'
    })
  if (modeAllows(device, self, own)) return allowedByMode(what)
  const groupMay = (device.mode & 0o060) === 0o060 && device.gid !== 0
  if (groupMay && group) return joining(what, group, userName(self))
  if (groupMay && containerKind() !== null)
    return lacking(path, `${what}, a group that this container has no name for and that its user is not in`, {
      advice: `start the container with --group-add ${device.gid}, as in: docker run --device ${path} --group-add ${device.gid} ...`
    })
  const unjoinable = device.gid === 0 ? 'the group root is not one to join' : 'its group may not use it, so that joining would not help'
  return giving(groupMay ? what : `${what}: ${unjoinable}`, self, own, database)
}

const joined = 'newgrp opens a shell that has the group; a new login has it everywhere'

function joining(what: string, { name, members }: Group, user: string): Finding {
  if (!members.includes(user))
    return lacking(path, `${what}, and ${user} is not in that group`, withShell(byRoot(`usermod -aG ${quoted(name)} ${quoted(user)}`, joined), name))
  const before = `${what}; ${user} is in that group, but this session began before that`
  return lacking(path, before, gainsNothing() ? { advice: 'log in again' } : { remedy: `newgrp ${quoted(name)}`, price: joined })
}

/** Membership counts from the next login on, and in a shell of newgrp(1). */
const withShell = ({ remedy, ...other }: ReturnType<typeof byRoot>, group: string) => ({
  ...other,
  ...(remedy === undefined ? {} : { remedy: `${remedy} && newgrp ${quoted(group)}` })
})

const lasting =
  'until the device is made anew, at the latest at the next boot; a rule for udev lasts, in /etc/udev/rules.d/65-kvm.rules: KERNEL=="kvm", GROUP="kvm", MODE="0660"'

/** A device that no group which one could join may use. */
function giving(what: string, self: number, own: readonly number[], database: readonly Group[]): Finding {
  const kvm = database.find(({ name }) => name === 'kvm')
  const command =
    kvm && own.includes(kvm.gid)
      ? `chgrp kvm ${path} && chmod 660 ${path}`
      : isInstalled('setfacl')
        ? `setfacl -m u:${self}:rw ${path}`
        : `chown ${self} ${path}`
  return lacking(path, what, byRoot(command, lasting))
}

/** The mode would let us in: then it is the mount, or a security module. */
function allowedByMode(what: string): Finding {
  const mounts = (readOptional('/proc/self/mountinfo') ?? '').split('\n').map((line) => {
    const [, , , , point = '', options = ''] = line.split(' ')
    return { point, options: options.split(',') }
  })
  // The last of the longest is the one on top.
  const mount = mounts
    .filter(({ point }) => path === point || path.startsWith(point.endsWith('/') ? point : `${point}/`))
    .reduce<(typeof mounts)[number] | undefined>((best, next) => (best && best.point.length > next.point.length ? best : next), undefined)
  if (mount?.options.includes('nodev'))
    return lacking(
      path,
      `${what}, which lets this user in; but ${mount.point} is mounted with nodev`,
      byRoot(`mount -o remount,bind,dev ${quoted(mount.point)}`)
    )
  return lacking(path, `${what}, which lets this user in; a security module (AppArmor, SELinux) refuses it`, {
    advice: 'the kernel log names the rule: sudo dmesg | grep -iE "apparmor|avc|denied"'
  })
}
