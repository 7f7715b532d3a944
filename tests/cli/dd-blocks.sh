# SPDX-License-Identifier: GPL-2.0-or-later
# dd counts as dd(1), and does not overwrite by accident.
head -c 10000 "$IMG" | cat - /dev/zero | head -c 30208 > disk.raw
img convert -f raw -O qcow2 disk.raw disk.qcow2
for args in '' 'skip=3' 'count=5' 'skip=3 count=5' 'bs=1536 skip=2 count=3' 'bs=1k skip=5 count=1k' 'skip=59' 'count=0' 'skip=60'; do
	dd if=disk.raw of=theirs $args status=none
	img dd --force if=disk.qcow2 of=ours $args && cmp theirs ours && echo "$args: $(stat -c %s ours)"
done
img dd if=disk.qcow2 of=disk.raw
img dd if=disk.qcow2 of=disk.qcow2 --force
img dd -O qcow2 if=disk.qcow2 of=part.qcow2 bs=1k skip=1 count=8 && img info part.qcow2 | sed -n '/virtual/p'
img dd --progress=json -O qcow2 if=disk.qcow2 of=all.qcow2 | grep -c '"state": "done"'
img dd if=disk.qcow2
img dd if=disk.qcow2 of=x conv=notrunc
ls
