/** The programs that run inside the guest, as shell scripts for busybox. */

/** The marks by which the guest reports its own state on its console. */
export const marks = { ready: '@@lab ready@@', start: '@@lab start@@', end: '@@lab end@@', failed: '@@lab failed@@' }

/** The folder in the guest at which the disk of the run, with the package, is mounted. */
export const runFolder = '/lab'
export const packageFolder = `${runFolder}/package`
export const resultsFolder = '/results'
/** The file on the disk of the run that takes the status of the command. */
export const statusName = 'status'

/**
 * The first process. Its first half needs nothing of the run, so that the state after it can be saved. Then it checks again and again whether the
 * disk of the run has a file system yet; each time it bypasses its own cache of that disk.
 */
export const init = `#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
say() { echo; echo "$1"; } >/dev/ttyS0
off() {
  stty -F /dev/ttyS1 -echo; stty -F /dev/ttyS0 opost
  poweroff -f
  sleep 5; reboot -f
}
fail() { say "${marks.failed} $1"; off; }
load() {
  while read -r name; do
    [ -d /sys/module/$name ] && continue
    case $name in kvm) arguments=$KVM_ARGUMENTS;; kvm_*) arguments=$MODULE_ARGUMENTS;; *) arguments=;; esac
    insmod /modules/$name.ko $arguments || fail "inserting $name"
  done </modules/$1.order
}
stty -F /dev/ttyS1 raw -echo 115200
case " $(cat /proc/cmdline) " in *" lab.bus=ata "*) bus=ata;; *) bus=virtio;; esac
load $bus
# ATA disks by where they are plugged in: Linux looks at them at the same time, and which is sda is chance.
disk() {
  tries=0
  while :; do
    case $bus in ata) name=$(ls /sys/bus/scsi/devices/$1/block 2>/dev/null);; *) name=$2;; esac
    [ -n "$name" ] && [ -b /dev/$name ] && break
    sleep 0.1; tries=$((tries+1)); [ $tries -gt 100 ] && fail "there are no disks"
  done
  echo /dev/$name
}
base=$(disk 0:0:0:0 vda); run=$(disk 0:0:1:0 vdb); modules=$(disk 1:0:0:0 vdc)
mount -t ext4 -o ro,noatime $base /base || fail "mounting the base disk"
mount -t devtmpfs dev /base/dev; mount -t proc proc /base/proc; mount -t sysfs sys /base/sys
mkdir -p /base/dev/pts /base/dev/shm; mount -t devpts pts /base/dev/pts; mount -t tmpfs -o mode=1777 tmp /base/dev/shm
mount -t tmpfs -o mode=1777 tmp /base/tmp; mount -t tmpfs run /base/run
mount -t tracefs tracefs /base/sys/kernel/tracing; mount -t debugfs debugfs /base/sys/kernel/debug; mount -t bpf bpf /base/sys/fs/bpf
# A mapping larger than the machine's memory is refused otherwise, though most of it is never touched.
echo 1 >/proc/sys/vm/overcommit_memory
ifconfig lo 127.0.0.1 up; hostname lab
dmesg -n 1
# Has Node in memory, and so in the saved state: half of its start is reading it.
chroot /base /usr/local/bin/node -e 0 </dev/null >/dev/null 2>&1
say "${marks.ready}"
until blockdev --flushbufs $run && mount -t ext4 -o noatime $run /base${runFolder} 2>/dev/null; do sleep 0.1; done
. /base${runFolder}/settings
# What a saved state has kept: the hour, and random numbers that another run of it has too.
date -s @$NOW >/dev/null
cat /base${runFolder}/random >/dev/urandom; reseed </dev/urandom || fail "making random numbers anew"
blockdev --flushbufs $modules
mount -t ext4 -o ro,noatime $modules /base/modules || fail "mounting the disk of node_modules"
load $KVM_MODULE
if [ -d /base/modules/node_modules ]; then
  mkdir -p /base${packageFolder}/node_modules; mount -o bind /base/modules/node_modules /base${packageFolder}/node_modules
  for name in .vite .vite-temp; do mount -t tmpfs tmp /base${packageFolder}/node_modules/$name; done
fi
mkdir -p /base${runFolder}${resultsFolder}; mount -o bind /base${runFolder}${resultsFolder} /base${resultsFolder}
# What the kernel holds back until the first write to the console goes out before the mark.
stty -F /dev/ttyS0 raw -echo
mkfifo /stderr
say "${marks.start}"
cat </stderr >/dev/ttyS0 & reader=$!
{
  chroot /base /bin/sh ${runFolder}/run 2>/stderr </dev/null
  # What the command left behind would keep the pipes open.
  for process in /proc/[0-9]*; do case $(readlink $process/root) in /base*) kill -9 \${process#/proc/};; esac; done
} | cat >/dev/ttyS1
wait $reader
stty -F /dev/ttyS1 raw
sync
umount /base${resultsFolder}; umount /base${packageFolder}/node_modules/.vite* /base${packageFolder}/node_modules; umount /base${runFolder}
sync
say "${marks.end}"
off
`

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`

/** The script that runs the command, in the root that the command sees. */
export function runScript(command: readonly string[], environment: Record<string, string>): string {
  const settings = {
    HOME: '/root',
    PATH: `${packageFolder}/node_modules/.bin:/usr/local/bin:/usr/bin:/bin`,
    LD_LIBRARY_PATH: '/modules/libraries',
    ...environment
  }
  return [
    ...Object.entries(settings).map(([name, value]) => `export ${name}=${quote(value)}`),
    'ulimit -n 65536',
    `cd ${packageFolder}`,
    `( exec ${command.map(quote).join(' ')} )`,
    // This overwrites bytes that are there: a full disk refuses a new block, but not this.
    `printf '%-8s' $? | dd of=${runFolder}/${statusName} conv=notrunc 2>/dev/null`,
    ''
  ].join('\n')
}

/** `node-kvm` in the guest: the package that was copied, or the node-kvm on which it depends. */
export const nodeKvm = `#!/bin/sh
for place in ${packageFolder}/node_modules/node-kvm ${packageFolder}; do
  [ -f $place/dist/lib/cli/main.js ] && exec node $place/dist/lib/cli/main.js "$@"
done
echo "node-kvm: the package that was copied into the guest does not contain node-kvm" >&2
exit 127
`
