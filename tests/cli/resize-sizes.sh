# SPDX-License-Identifier: GPL-2.0-or-later
# resize: absolute and relative, and never smaller by accident.
img create -q -f qcow2 disk.qcow2 1G
size() { img info disk.qcow2 | sed -n 's/^virtual size: //p'; }
img resize disk.qcow2 2G; size
img resize -q disk.qcow2 +512; size
img resize disk.qcow2 1G; size
img resize disk.qcow2 -1G
img resize --shrink disk.qcow2 -1G; size
img resize -q --shrink -- disk.qcow2 1M; size
img resize -q --preallocation=metadata disk.qcow2 1088k; size
img map --output=json disk.qcow2 | tail -1 | cut -d, -f 1-4
echo "--- what cannot be"
img resize --shrink disk.qcow2 -2M
img resize --preallocation=full --shrink disk.qcow2 64k
img resize --preallocation=some disk.qcow2 2M
img resize disk.qcow2 0
img resize disk.qcow2 2X
img resize disk.qcow2 1000
img resize disk.qcow2
img resize disk.qcow2 1G 2G
img resize lost.qcow2 1G
size
