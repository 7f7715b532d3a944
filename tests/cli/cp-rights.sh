# SPDX-License-Identifier: GPL-2.0-or-later
# Owners, set-user-ID and devices come out of a guest only when root asks for them.
umask 022
[ "$(id -u)" = 0 ] || { echo "not root"; exit 77; }
copy() { img cp --isolation=process "$@"; echo "exit $?"; }
nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
show() { stat -c '%n %A %u:%g %t,%T' "$1"/*; }

nobody "$IMG" --version > /dev/null 2>&1 && nobody test -x . ||
	{ echo "others cannot run the program here"; exit 77; }
mkdir -p tree
echo run > tree/suid
chown 1234:1235 tree/suid
chmod 6755 tree/suid
mknod tree/null c 1 3 2> /dev/null || { echo "no devices"; exit 77; }
mke2fs -q -t ext4 -d tree disk.raw 16M > mke2fs.out 2>&1
debugfs -w -R 'rmdir lost+found' disk.raw > /dev/null 2>&1
copy -r disk.raw:/ plain
show plain
copy -r -p disk.raw:/ kept
show kept
copy -a disk.raw:/ all
show all
copy disk.raw:/suid one
copy -p disk.raw:/suid two
stat -c '%n %A %u:%g' one two
chmod 666 disk.raw
mkdir others
chmod 777 others
cd others
nobody "$IMG" cp --isolation=process -a ../disk.raw:/ all
echo "exit $?"
show all
