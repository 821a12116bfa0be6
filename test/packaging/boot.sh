#!/bin/sh
# Boots the systemd of this machine in namespaces and a cgroup of its own, over a copy-on-write view of the root directory: nothing that happens inside
# is seen outside. Needs root with CAP_SYS_ADMIN.
#
#   boot.sh SCRATCH    the process stays until it is killed, and all inside dies with it
set -eu
scratch=$1
unified=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
[ -n "$unified" ] || { echo "boot: no cgroup2 is mounted here, and systemd needs one" >&2; exit 1; }
group=$unified/latchkey-boot-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"
echo "$group" >"$scratch/cgroup"
exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup --propagation private sh -eu -c '
scratch=$1
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
# What this machine starts for itself is not started again; neither does it know the package.
rm -rf etc/systemd/system/* var/lib/latchkey etc/latchkey
for unit in systemd-modules-load.service systemd-journald-audit.socket sys-kernel-debug.mount; do ln -s /dev/null "etc/systemd/system/$unit"; done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys # the kernel settings are those of the machine
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs dev
node() { mknod -m 666 "dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir run/old
pivot_root . run/old
umount -l /run/old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
' sh "$scratch"
