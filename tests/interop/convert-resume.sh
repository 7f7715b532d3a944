# SPDX-License-Identifier: GPL-2.0-or-later
# An image that was made in two runs is a sound one for qemu-img too, and holds what the source holds.
qemu-img create -q -f qcow2 source 24M
for i in 0 1 2 3 4 5 6 7 8 9 10 11; do qemu-io -c "write -q -P $((i + 1)) $((i * 2))M 1536k" source; done
qemu-img create -q -f qcow2 -b source -F qcow2 overlay
qemu-io -c 'write -q -P 99 1M 9M' -c 'write -q -z 12M 1M' overlay
head -c 4M /dev/urandom > random
qemu-io -c 'write -q -s random 16M 4M' overlay
for opts in '' '-c' '-c -o compression_type=zstd,cluster_size=4k' '-o compat=0.10' '-o extended_l2=on' \
	'-b source -F qcow2'; do
	(ulimit -f 3072; img convert -q --resume -O qcow2 $opts overlay copy 2> /dev/null)
	[ -s copy.partial ] || echo "$opts: nothing is left of the first run"
	img convert -q --resume -O qcow2 $opts overlay copy || echo "$opts: it does not go on"
	qemu-img check -q copy || echo "$opts: check says $?"
	qemu-img compare -q overlay copy || echo "$opts: compare says $?"
	rm copy
done
