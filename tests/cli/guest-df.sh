# SPDX-License-Identifier: GPL-2.0-or-later
# filesystems and df tell of disks with either partition table, with none, and of what cannot be mounted.
id=0d1e2f3a-0000-4000-8000-00000000000
mkdir -p tree/dir && seq 20000 > tree/dir/numbers
truncate -s 8M fs && mke2fs -q -t ext4 -L root -d tree -U ${id}1 fs
truncate -s 4M minix && mkfs.minix minix > /dev/null
truncate -s 24M mbr
printf '%s\n' 'label: dos' 'label-id: 0x12345678' 'start=2048,size=8M,type=83,bootable' 'size=4M,type=82' \
	'type=5' 'size=2M,type=83' | sfdisk -q mbr
dd if=fs of=mbr bs=1M seek=1 conv=notrunc status=none
dd if=/dev/zero of=swap bs=1M count=4 status=none && mkswap -q -L sw -U ${id}2 swap 2> /dev/null
dd if=swap of=mbr bs=1M seek=9 conv=notrunc status=none
truncate -s 24M gpt
printf '%s\n' 'label: gpt' "label-id: ${id}3" "size=4M,type=U,uuid=${id}4,name=efi" \
	"size=8M,type=L,uuid=${id}5,name=\"the root\"" | sfdisk -q gpt
dd if=minix of=gpt bs=1M seek=1 conv=notrunc status=none
dd if=fs of=gpt bs=1M seek=5 conv=notrunc status=none
img convert -O qcow2 gpt gpt.qcow2
truncate -s 1M empty

look() { img "$@" --isolation=process; echo "exit $?"; }
echo "-- filesystems"
for disk in fs mbr gpt.qcow2 empty; do
	echo "- $disk"
	look filesystems "$disk"
	look filesystems --all -l "$disk"
done
look filesystems --parts -h --no-title mbr
look filesystems -a gpt.qcow2 mbr
img filesystems --all mbr 2> /dev/null | tail -n 1
echo "-- filesystems as JSON"
look filesystems --all --output=json gpt.qcow2
look filesystems --all --output=json mbr
echo "-- df"
look df fs gpt.qcow2 mbr
look df -h gpt.qcow2
look df -i mbr
look df -m sda2 gpt.qcow2
look df -m sda1 gpt.qcow2
look df -a fs -m sda2 -m sdb:/dir gpt.qcow2:/dir gpt.qcow2:/
look df --output=json gpt.qcow2
look df empty
echo "-- errors"
look df missing fs
look df fs:/nowhere
look df
look filesystems
look filesystems fs fs
look filesystems fs:/dir
cp fs broken && printf '\377\377\377\377' | dd of=broken bs=1 seek=1064 conv=notrunc status=none
look df broken
