# SPDX-License-Identifier: GPL-2.0-or-later
# Several sources become one disk, one after the other, whatever their formats.
head -c 1M /dev/zero | tr '\0' a > a.raw
head -c 1000 /dev/zero | tr '\0' b > b.raw
img convert -O qcow2 b.raw b.qcow2
img create -q -f qcow2 -b a.raw -F raw top.qcow2
img convert a.raw b.qcow2 top.qcow2 joined.raw
{ cat a.raw b.raw; head -c 24 /dev/zero; cat a.raw; } | cmp - joined.raw && echo raw
img convert -c -O qcow2 a.raw b.qcow2 top.qcow2 joined.qcow2
img compare joined.raw joined.qcow2
img check -q joined.qcow2 && echo "in order"
img info joined.qcow2 | grep virtual
echo "--- what cannot be"
img convert a.raw missing.raw x.raw
img convert -B a.raw -F raw -O qcow2 top.qcow2 top.qcow2 x.qcow2
img convert -l snap top.qcow2 top.qcow2 x.raw
ls
