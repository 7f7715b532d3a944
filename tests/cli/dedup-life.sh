# SPDX-License-Identifier: GPL-2.0-or-later
# dedup: what disk and snapshots have in common is stored once; nothing that can be read changes.
{ head -c 1M /dev/zero | tr '\0' a; head -c 1M /dev/zero | tr '\0' b; } > disk.raw
for v in 1.1 0.10; do
	img convert -O qcow2 -o compat=$v disk.raw d$v.qcow2
	img snapshot -c one d$v.qcow2
	img convert -n -O qcow2 disk.raw d$v.qcow2
	img dedup --output=json d$v.qcow2
	img check -q d$v.qcow2 && img compare -q d$v.qcow2 disk.raw
	img dedup --within-disk d$v.qcow2
	img check -q d$v.qcow2 && img compare -q d$v.qcow2 disk.raw
	head -c 64K /dev/zero | tr '\0' c | dd of=disk.raw bs=64K seek=3 conv=notrunc status=none
	img convert -n -O qcow2 disk.raw d$v.qcow2 && img compare -q d$v.qcow2 disk.raw
	img convert -l one -O raw --force d$v.qcow2 one.raw
	tr -d ab < one.raw | wc -c
	img snapshot -d one d$v.qcow2 && img check -q d$v.qcow2 && img compare -q d$v.qcow2 disk.raw
	head -c 64K /dev/zero | tr '\0' a | dd of=disk.raw bs=64K seek=3 conv=notrunc status=none
done
echo "refused:"
img dedup disk.raw; echo "raw: $?"
img dedup; echo "nothing: $?"
img dedup missing; echo "missing: $?"
