# SPDX-License-Identifier: GPL-2.0-or-later
# In the emulated machine: the commands look into a disk and change it, in cells on the real
# kvm-amd, and find the same as the process that needs no KVM does. Busybox's sh.
set -e
img filesystems --isolation=vm /disk
for isolation in vm process; do
	rm -rf out
	mkdir out
	img cat --isolation=$isolation /disk:/dir/hello
	img ls --isolation=$isolation -lR /disk:/ > out.$isolation
	img cp --isolation=$isolation -r /disk:/dir out
	img cat --isolation=$isolation /disk:/big > big.$isolation
	md5sum < out/dir/numbers
done
cmp out.vm out.process
cmp big.vm big.process
cat out.vm
echo written > new
img cp --isolation=vm new /disk:/dir/new
img cat --isolation=process /disk:/dir/new
img rm --isolation=vm -r /disk:/dir
img ls --isolation=vm /disk:/
[ ! -e /sbin/e2fsck.static ] || img fsck --isolation=vm -f /disk
echo "the commands work"
