# SPDX-License-Identifier: GPL-2.0-or-later
# Cache modes: past the page cache (O_DIRECT) on either side the result is the same.
{ seq 300000; head -c 1M /dev/zero; seq 1000; } > disk.raw
truncate -s %512 disk.raw
dd if=disk.raw of=/dev/null iflag=direct bs=4k count=1 status=none 2> /dev/null || { echo "no O_DIRECT here"; exit 77; }
for mode in none off writeback writethrough directsync unsafe; do
	img convert --force -t $mode -T none -O qcow2 -o cluster_size=4k disk.raw a.qcow2
	img convert --force -T $mode -t none a.qcow2 back.raw
	cmp disk.raw back.raw
	img convert --force -c -t $mode -O qcow2 disk.raw c.qcow2
	img compare -T $mode c.qcow2 disk.raw
	img check -q -T $mode a.qcow2
done
img create -q -f qcow2 b.qcow2 "$(stat -c %s disk.raw)"
img convert -n -t none -f raw -O qcow2 disk.raw b.qcow2 && img compare b.qcow2 disk.raw
img convert -t nonsense disk.raw x.raw
img convert -T nonsense disk.raw x.raw
ls
