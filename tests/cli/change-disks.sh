# SPDX-License-Identifier: GPL-2.0-or-later
# Commands that change guests work in partitions and overlays, in both cages, and change nothing else.
. "$TOP/tests/lib/guest.sh"
mkdir -p tree/etc tree/mnt && echo hello > tree/etc/hosts
make_ext tree one 8M -L one
mke2fs -q -t ext4 -L two two 8M > /dev/null
truncate -s 20M disk
printf '%s\n' 'label: gpt' 'start=2048,size=8M' 'size=8M' | sfdisk -q disk
dd if=one of=disk bs=1M seek=1 conv=notrunc status=none
dd if=two of=disk bs=1M seek=9 conv=notrunc status=none
img convert -O qcow2 disk base.qcow2
img snapshot -c before base.qcow2
sha256sum base.qcow2 > sum
img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2

# The partitions of a disk of any format as files one and two; all around them is as it was.
take_apart() { # IMAGE
	img convert --force -O raw "$1" now
	dd if=now of=one bs=1M skip=1 count=8 status=none
	dd if=now of=two bs=1M skip=9 count=8 status=none
	cmp -n 1M disk now
	cmp -i 17M disk now
	sound one
	sound two
}

echo "-- an overlay, in what each cage there is does"
for how in auto process; do
	img mkdir --isolation=$how --mount sda1 --mount LABEL=two:/mnt -p \
		top.qcow2:/$how/a "top.qcow2:/mnt/$how/b" 2> err || cat err
	img edit --isolation=$how -m LABEL=one -e "s/\$/ $how/" top.qcow2:/etc/hosts 2> err || cat err
done
try chmod -R -m sda1 -m sda2:/mnt go-rwx top.qcow2:/
try chown -R -m sda1 -m sda2:/mnt 1000:70000 top.qcow2:/mnt
try ln -m sda1 -m sda2:/mnt /etc/hosts top.qcow2:/mnt
try mv -m sda1 -m sda2:/mnt top.qcow2:/etc/hosts /mnt
try rm -m sda1 -m sda2:/mnt -r top.qcow2:/mnt
sha256sum --quiet -c sum
img check top.qcow2 | head -n 1
take_apart top.qcow2
list / one
ext "cat /etc/hosts" one
list / two

echo "-- the base itself: its snapshot stays"
img checksum -l before base.qcow2 > sum
try rm -m sda1 -rf base.qcow2:/etc base.qcow2:/mnt
img checksum -l before base.qcow2 | cmp - sum
img check base.qcow2 | head -n 1
take_apart base.qcow2
list / one

echo "-- two disks, one after the other, and one beside the other"
cp one other
try mkdir one:/1 other:/1 one:/2
list / one
list / other
try mkdir -a other --mount sda --mount sdb:/1 one:/1/in-other one:/1/too
list / other
sound one
sound other
try mkdir -m 700 --mount sdb disk:/x
try mkdir disk:/x
