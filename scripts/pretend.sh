#!/bin/sh
# Runs a command as on another kind of host. The script needs root; it uses its own mount namespace, so the host's files stay as they are:
#     scripts/pretend.sh without-kvm npx vitest run      there is no /dev/kvm
#     scripts/pretend.sh ordinary-user npx vitest run    the user is nobody, is in the group of /dev/kvm and has no capability
set -e
kind=$1
case $kind in without-kvm|ordinary-user) ;; *) sed -n '2,4s/^# //p' "$0" >&2; exit 2;; esac
[ "$NODE_KVM_PRETENDS" ] || exec env NODE_KVM_PRETENDS=1 unshare --mount --propagation private "$0" "$@"
unset NODE_KVM_PRETENDS
shift

# This makes a separate /dev with all nodes of the real one except KVM's.
mount -t tmpfs -o mode=755 dev /mnt
for place in /dev/*; do
  name=${place#/dev/}
  if [ "$name" = kvm ]; then continue
  elif [ -L "$place" ]; then cp -a "$place" /mnt/
  elif [ -d "$place" ]; then mkdir "/mnt/$name"; mount --rbind "$place" "/mnt/$name"
  else : >"/mnt/$name"; mount --bind "$place" "/mnt/$name"
  fi
done
mount --move /mnt /dev
[ $kind = without-kvm ] && exec "$@"

# The group has a number that no user of this host has. Other users may have no access to a folder above this one, but they have it to /mnt.
group=61234
nobody=65534
mknod -m 660 /dev/kvm c 10 232
chgrp $group /dev/kvm
package=$PWD
mount -t tmpfs -o mode=755 mnt /mnt
mkdir -p /mnt/package /mnt/home
chown $nobody /mnt/home
mount --bind "$package" /mnt/package
cd /mnt/package
for cache in .vite .vite-temp; do
  mkdir -p node_modules/$cache
  mount -t tmpfs -o uid=$nobody cache node_modules/$cache
done
exec setpriv --reuid $nobody --regid $nobody --groups $group --inh-caps=-all --bounding-set=-all -- \
  env -u XDG_RUNTIME_DIR -u XDG_CACHE_HOME HOME=/mnt/home "$@"
