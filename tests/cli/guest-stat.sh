# SPDX-License-Identifier: GPL-2.0-or-later
# stat and cat tell of one file all that there is, byte for byte, in any image and in its snapshots.
export TZ=UTC
mkdir -p tree/etc tree/lib
printf 'ID=test\n' > tree/lib/os-release
ln -s ../lib/os-release tree/etc/os-release
ln -s /etc/loop tree/etc/loop
seq 200000 > tree/etc/numbers
{ head -c 70000 /dev/zero; seq 9; head -c 5000000 /dev/zero; echo end; } > tree/etc/holes
: > tree/etc/empty
find tree -depth -exec touch -h -d '2024-02-29 12:34:56 UTC' {} +
truncate -s 24M raw
mke2fs -q -t ext4 -b 4096 -d tree raw
{
	for f in lib/os-release etc/os-release etc/numbers; do
		for field in 'uid 1000' 'gid 100' 'generation 0' 'ctime 20240301000000' 'crtime 20240302000000'; do
			echo "sif /$f $field"
		done
	done
	echo 'ea_set /lib/os-release user.note plain'
	echo 'ea_set /lib/os-release security.selinux system_u:object_r:etc_t:s0'
	echo 'ea_set /lib/os-release user.bytes -f bytes'
	printf 'mknod disk b 8 17\n'
} > commands
printf '\000\001\377' > bytes
debugfs -w -f commands raw > /dev/null 2>&1
img convert -O qcow2 raw disk.qcow2
img snapshot -c before disk.qcow2
img create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2

look() {
	img "$@" --isolation=process | sed 's/Inode: [0-9]* */Inode: N /; s/"inode": [0-9]*/"inode": N/'
	echo "exit ${PIPESTATUS[0]}"
}
echo "-- stat"
look stat raw:/etc/os-release raw:/lib/os-release
look stat -L raw:/etc/os-release | grep -E 'File|exit'
look stat raw:/disk | grep -E 'File|Size|Device|Access: \('
look stat top.qcow2:/etc/holes | grep Size
echo "-- stat as JSON"
look stat --output=json -L raw:/etc/os-release raw:/etc/os-release
look stat --output=json raw:/etc/os-release | grep -E 'target|path'
echo "-- cat: raw, qcow2, its snapshot, an overlay, both cages"
for place in raw disk.qcow2 disk.qcow2@before top.qcow2; do
	for f in numbers holes empty; do
		img cat --isolation=process $place:/etc/$f | cmp - tree/etc/$f && echo "$place $f"
	done
done
img cat raw:/etc/numbers disk.qcow2:/etc/empty disk.qcow2:/lib/os-release raw:/etc/os-release 2> /dev/null > all
cat tree/etc/numbers tree/lib/os-release tree/lib/os-release | cmp - all
echo "-- a snapshot is what was"
debugfs -w -R 'rm /lib/os-release' raw 2> /dev/null
img convert -O raw raw changed
img convert -n -O qcow2 changed disk.qcow2
look cat disk.qcow2@before:/etc/os-release
look cat disk.qcow2:/etc/os-release
echo "-- errors: the others are still printed"
look cat raw:/nowhere raw:/etc raw:/etc/loop disk.qcow2@before:/lib/os-release
look cat disk.qcow2@other:/lib/os-release
look stat raw:/nowhere raw:/etc/empty | grep -E 'File|exit'
look stat raw
look stat
look cat raw
look cat
