#!/bin/sh
# Make a tree the root of this mount namespace, and run a command in it: enter.sh TREE COMMAND…
# With BOOT=yes as the first process of a host: /run is empty, and control groups are below the caller's.
set -eu
tree=$1
shift
mount --bind "$tree" "$tree"
cd "$tree"
mount -t proc proc proc
mount -t sysfs sysfs sys
mkdir -p dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
if [ "${BOOT:-}" = yes ]; then
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
pivot_root . mnt
umount -l /mnt
exec "$@"
