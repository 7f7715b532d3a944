# SPDX-License-Identifier: GPL-2.0-or-later
# On a file system that is read-only all that only looks works, and the rest says why it does not.
mkdir disk
mount -t tmpfs -o size=16m tmpfs disk 2>/dev/null || { echo "mounting is not permitted"; exit 77; }
trap 'umount disk' EXIT
head -c 1M /dev/zero | tr '\0' a > source.raw
img convert -O qcow2 source.raw disk/a.qcow2
img snapshot -c one disk/a.qcow2
mount -o remount,ro disk
img info disk/a.qcow2 | grep format:
img check -q disk/a.qcow2 && echo checked
img map --output=json disk/a.qcow2
img compare source.raw disk/a.qcow2
img convert disk/a.qcow2 copy.raw && cmp source.raw copy.raw
img convert -l one disk/a.qcow2 snap.raw && cmp source.raw snap.raw
echo "--- what cannot be"
img create -f qcow2 disk/new.qcow2 1M
img convert source.raw disk/new.raw
img convert --force source.raw disk/a.qcow2
img convert -n -O qcow2 source.raw disk/a.qcow2
img resize disk/a.qcow2 2M
img snapshot -c two disk/a.qcow2
img snapshot -a one disk/a.qcow2
img snapshot -d one disk/a.qcow2
img check -r all disk/a.qcow2
echo "exit $?"
