# SPDX-License-Identifier: GPL-2.0-or-later
# fsck finds and repairs what e2fsck finds and repairs: in a partition of a qcow2 image, without
# touching anything else; exit codes are e2fsck's.
[ -e /sbin/e2fsck.static ] || { echo "no e2fsck-static"; exit 77; }
fsck() {
	img fsck --isolation=process "$@" | grep -v '^e2fsck 1'
	echo "exit ${PIPESTATUS[0]}"
}
mkdir -p tree/dir && echo hello > tree/dir/file
truncate -s 8M fs
mke2fs -q -t ext4 -L data -d tree -U 0d1e2f3a-0000-4000-8000-000000000001 fs
truncate -s 20M raw
printf '%s\n' 'label: dos' 'start=2048,size=8M,type=83' 'size=4M,type=82' | sfdisk -q raw
dd if=fs of=raw bs=1M seek=1 conv=notrunc status=none
echo "-- sound, in both cages"
fsck raw
img fsck -f raw 2> /dev/null | grep -v '^e2fsck 1'
img fsck -f --isolation=process --progress=json raw 2>&1 > /dev/null | tail -n 1 | grep -o '"done".*100.00'

echo "-- broken: found, reported as JSON, not changed"
ino=$(debugfs -R 'stat dir/file' fs 2> /dev/null | sed -n 's/^Inode: \([0-9]*\).*/\1/p')
debugfs -w -R 'sif dir/file links_count 7' fs 2> /dev/null
dd if=fs of=raw bs=1M seek=1 conv=notrunc status=none
img convert -O qcow2 raw disk.qcow2
img snapshot -c before disk.qcow2
sha256sum raw disk.qcow2 > sums
fsck -f raw | sed "s/Inode $ino/Inode N/"
fsck -f -m LABEL=data -n disk.qcow2 | grep exit
img fsck -f --isolation=process --output=json disk.qcow2@before | grep -v 'e2fsck 1' | sed "s/Inode $ino/Inode N/"
sha256sum --quiet -c sums

echo "-- repaired: the second run finds nothing, nor does e2fsck; the snapshot is as it was"
fsck -p -f disk.qcow2 | sed "s/Inode $ino/Inode N/"
fsck -f disk.qcow2 | grep exit
img convert -O raw disk.qcow2 after
dd if=after of=part bs=1M skip=1 count=8 status=none
e2fsck -fn part > /dev/null 2>&1; echo "e2fsck $?"
debugfs -R 'cat dir/file' part 2> /dev/null
cmp -n 1048576 raw after
cmp -i 9437184 raw after
fsck -f disk.qcow2@before | grep exit
fsck -y -f raw | grep exit
fsck -f raw | grep exit

echo "-- a lost superblock: the backup"
truncate -s 12M twelve
mke2fs -q -t ext4 -b 1024 twelve
dd if=/dev/zero of=twelve bs=1k seek=1 count=1 conv=notrunc status=none
fsck twelve
fsck -y -m sda -b 8193 -B 1024 twelve | grep exit
fsck -f twelve | grep exit

echo "-- a name cannot steer the terminal"
tune2fs -L "$(printf 'a\033[2Jb')" part > /dev/null
fsck part

echo "-- refused"
fsck
fsck -n -y raw
fsck -b x raw
fsck raw:/dir
fsck -p disk.qcow2@before
fsck nothing
fsck -m sda2 raw | grep exit
truncate -s 1M swap
mkswap -q swap
fsck -m sda swap
fsck -m sda7 raw
fsck --program=/nowhere raw
fsck --program=raw raw 2>&1 | sed 's/raw: .*/raw: …/'
truncate -s 1M empty
fsck empty
truncate -s 4M four
mke2fs -q -t ext2 four
dd if=four of=raw bs=1M seek=9 conv=notrunc status=none
fsck raw
