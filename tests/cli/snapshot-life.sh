# SPDX-License-Identifier: GPL-2.0-or-later
# snapshot: take, list, apply, delete; by id and by name.
img create -q -f qcow2 disk.qcow2 1M
img snapshot disk.qcow2
img snapshot -c one disk.qcow2
img resize -q disk.qcow2 2M
img snapshot -c two disk.qcow2
img snapshot -l disk.qcow2 | sed 's/20[0-9-]* [0-9:]*/DATE/'
img snapshot -a one disk.qcow2
img info disk.qcow2 | grep 'virtual size'
img snapshot -a 2 disk.qcow2
img info disk.qcow2 | grep 'virtual size'
img snapshot -d 1 disk.qcow2
img snapshot --delete two disk.qcow2
img snapshot -l --output=json disk.qcow2
echo "--- what cannot be"
img snapshot -a one disk.qcow2
img snapshot -d one disk.qcow2
img snapshot -c "$(printf 'n%.0s' {1..256})" disk.qcow2
img snapshot -c a -d b disk.qcow2
img create -q disk.raw 1M
img snapshot -c one disk.raw
img snapshot -U -c one disk.qcow2
img check disk.qcow2
