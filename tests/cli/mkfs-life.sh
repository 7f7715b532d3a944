# SPDX-License-Identifier: GPL-2.0-or-later
# mkfs makes what e2fsck finds nothing in, on disks of several formats and on partitions, and does
# not overwrite what somebody may want to keep.
mkfs() { img mkfs --isolation=process "$@"; }
id=0d1e2f3a-0000-4000-8000-000000000001

echo "-- each type, of several sizes"
for type in ext2 ext3 ext4; do
	for size in 1M 24M 600M; do
		rm -f disk
		img create -q -f raw disk $size
		mkfs -q -t $type -L "$type $size" -U $id disk && e2fsck -fn disk > log 2>&1 || cat log
		blkid -p -o value -s TYPE -s LABEL -s UUID disk | paste -sd' '
	done
done

echo "-- on an overlay, seen by itself and by debugfs"
img create -q -f raw base 64M
img create -q -f qcow2 -b base -F raw top
mkfs -U $id -L data --output=json top
img convert -O raw top flat
e2fsck -fn flat > log 2>&1 || cat log
debugfs -R 'ls -p /' flat 2> /dev/null | cut -d/ -f6 | sort | paste -sd' '
img fsck --isolation=process -f top | tail -n 1
# Nothing was written below.
cmp base <(head -c 64M /dev/zero)

echo "-- on a partition: the others stay"
img create -q -f raw disk --force 40M
yes abcdefg | dd of=disk bs=1M count=40 iflag=fullblock conv=notrunc status=none
printf '%s\n' 'label: dos' 'start=2048,size=16M,type=83' 'start=36864,size=8M,type=83' | sfdisk -q disk
cp disk before
mkfs -m sda2 -b 1024 -N 500 -O ^metadata_csum -U $id disk
dd if=disk of=part bs=1M skip=18 count=8 status=none
e2fsck -fn part > log 2>&1 || cat log
dumpe2fs -h part 2> /dev/null | grep -E '^(Inode count|Block size|Block count)'
cmp -n $((18 << 20)) disk before
cmp -i $((26 << 20)) disk before

echo "-- refused"
mkfs disk
mkfs -m sda2 disk
mkfs -m sda2 -q --force -t ext2 -U $id disk && mkfs -m sda2 disk
mkfs -m sda7 disk
mkfs
mkfs -t xfs base
mkfs -b 1000 base
mkfs -O nonsense base
mkfs -U 1 base
mkfs -L 'a label that is too long' base
mkfs -N x base
mkfs base:/dir
mkfs nowhere
img create -q -f raw tiny 16k
mkfs tiny
cmp base <(head -c 64M /dev/zero) && echo "untouched"
