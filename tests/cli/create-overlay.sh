# SPDX-License-Identifier: GPL-2.0-or-later
# Overlays: the size of the backing file, its format, and what cannot be.
img create -q -f qcow2 base.qcow2 3M
mkdir sub
img create -f qcow2 -b ../base.qcow2 -B qcow2 sub/top.qcow2
img create -q -f qcow2 -b sub/top.qcow2 -F qcow2 -o cluster_size=4k upper.qcow2 8M
img info --backing-chain upper.qcow2 | grep -E '^(image|virtual|backing)'
echo "--- what cannot be"
img create -f qcow2 -b base.qcow2 new.qcow2
img create -f qcow2 -b lost.qcow2 -F qcow2 new.qcow2
img create -f qcow2 -b base.qcow2 -F what new.qcow2
img create -f qcow2 -u -b lost.qcow2 -F qcow2 new.qcow2
img create -f raw -b base.qcow2 -F qcow2 new.raw
img create --force -f qcow2 -b ./upper.qcow2 -F qcow2 base.qcow2
img create --force -f qcow2 -b base.qcow2 -F qcow2 base.qcow2
img info base.qcow2 | grep 'virtual size'
ls -A
