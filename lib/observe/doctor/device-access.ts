/** Explains why opening /dev/kvm gives EACCES: who owns the device, who this user is, and what gives the user access. */

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

/** Reads the groups of group(5). A name service may have more groups, which only the program getent would list. */
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

/** Whether the mode alone would allow access (path_resolution(7), "Permissions"). */
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
    return lacking(path, `${what}, a group that has no name in this container and does not contain its user`, {
      advice: `start the container with --group-add ${device.gid}, as in: docker run --device ${path} --group-add ${device.gid} ...`
    })
  const unjoinable = device.gid === 0 ? 'nobody should join the group root' : 'its group may not use it, so joining the group would not help'
  return giving(groupMay ? what : `${what}: ${unjoinable}`, self, own, database)
}

const joined = 'newgrp opens a shell that has the group; a new login has it everywhere'

function joining(what: string, { name, members }: Group, user: string): Finding {
  if (!members.includes(user))
    return lacking(path, `${what}, and ${user} is not in that group`, withShell(byRoot(`usermod -aG ${quoted(name)} ${quoted(user)}`, joined), name))
  const before = `${what}; ${user} is in that group, but this session began before that membership`
  return lacking(path, before, gainsNothing() ? { advice: 'log in again' } : { remedy: `newgrp ${quoted(name)}`, price: joined })
}

/** Adds the shell of newgrp(1) to the command, because a membership counts only in that shell and from the next login on. */
const withShell = ({ remedy, ...other }: ReturnType<typeof byRoot>, group: string) => ({
  ...other,
  ...(remedy === undefined ? {} : { remedy: `${remedy} && newgrp ${quoted(group)}` })
})

const lasting =
  'until the device is made anew, at the latest at the next boot; for a lasting change, add a udev rule in /etc/udev/rules.d/65-kvm.rules: KERNEL=="kvm", GROUP="kvm", MODE="0660"'

/** For a device whose group this user cannot join, or whose group may not use it. */
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

/** The mode allows access, so the mount or a security module refuses it. */
function allowedByMode(what: string): Finding {
  const mounts = (readOptional('/proc/self/mountinfo') ?? '').split('\n').map((line) => {
    const [, , , , point = '', options = ''] = line.split(' ')
    return { point, options: options.split(',') }
  })
  // Among the longest mount points, the last one is on top.
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
