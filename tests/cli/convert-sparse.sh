# SPDX-License-Identifier: GPL-2.0-or-later
# -S: how long zeros must be to become a hole. In the file, and in the clusters of an image.
{ printf a; head -c 65535 /dev/zero; printf b; head -c 8191 /dev/zero; printf c; head -c 1M /dev/zero; } > disk.raw
truncate -s 2M disk.raw
parts() { img map --output=json "$1" | sed -nE 's/.*"start": ([0-9]*), "length": ([0-9]*),.*"zero": false.*/\1+\2/p' | tr '\n' ' '; echo; }
for s in 0 512 4k 8k 64k 1M; do
	img convert --force -S $s disk.raw out.raw
	cmp disk.raw out.raw
	echo "raw $s: $(parts out.raw)"
	img convert --force -S $s -O qcow2 -o cluster_size=4k disk.raw out.qcow2
	img compare -q disk.raw out.qcow2 && echo "qcow2 $s: $(parts out.qcow2)"
done
img convert -S 0 disk.raw full.raw
test "$(stat -c %b full.raw)" -ge 4096 && echo "all of it takes space"
for s in 100 -1 x 1E; do img convert -S $s disk.raw x.raw; done
ls
