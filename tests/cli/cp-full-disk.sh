# SPDX-License-Identifier: GPL-2.0-or-later
# A host's disk that fills up: an error, nothing half-written, what was to be replaced still there.
umask 022
mkdir small tree
mount -t tmpfs -o size=2m tmpfs small 2>/dev/null || { echo "mounting is not permitted"; exit 77; }
trap 'umount small' EXIT
head -c 6M /dev/urandom > tree/large
echo tiny > tree/a
mke2fs -q -t ext4 -d tree disk.raw 32M > mke2fs.out 2>&1
debugfs -w -R 'rmdir lost+found' disk.raw > /dev/null 2>&1
echo precious > small/old
copy() { img "$@"; echo "exit $?"; }

copy cp --isolation=process disk.raw:/large small
copy cp --isolation=process disk.raw:/large small/old
copy cp --isolation=process -r disk.raw:/ small/tree
copy tar out --isolation=process disk.raw:/ -f small/x.tar
copy tar out --isolation=process disk.raw:/ -f small/old
find small -type f | sort
cat small/old
# An image that is on it: an error, too.
mke2fs -q -t ext4 small/thin.raw 16M > mke2fs.out 2>&1
copy cp --isolation=process tree/large small/thin.raw:/ 2>&1 | tail -n 1
