# SPDX-License-Identifier: GPL-2.0-or-later
# map: data, zeros, holes, layers, compressed clusters.
head -c 131072 /dev/zero | tr '\0' a > part
{ cat part; head -c 131072 /dev/zero; head -c 65536 part; } > disk.raw
img convert -O qcow2 disk.raw base.qcow2
img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 1M
# Where convert put the data is its own affair.
hosts() { sed -E 's/("offset": )[0-9]+/\1N/; s/0x[0-9a-f]+( +[a-z.0-9]+)$/N\1/'; }
img map --backing-chain top.qcow2 | hosts
img map --backing-chain --output=json top.qcow2 | hosts
img map --backing-chain --output=json -s 64k -l 128k top.qcow2 | hosts
img map --backing-chain --output=json -s 2M top.qcow2
img convert -c -O qcow2 disk.raw small.qcow2
img map --backing-chain small.qcow2
img map --backing-chain --output=json small.qcow2
img map --backing-chain -s 1k -s nonsense top.qcow2
