# SPDX-License-Identifier: GPL-2.0-or-later
# -n writes into an image that is there: its options stay, what lies behind the source's end stays too.
head -c 1M /dev/zero | tr '\0' n > new.raw
head -c 3M /dev/zero | tr '\0' o > old.raw
{ cat new.raw; tail -c 2M old.raw; } > both.raw
img convert -O qcow2 -o cluster_size=4k,lazy_refcounts=on old.raw disk.qcow2
img snapshot -c before disk.qcow2
img convert -n -O qcow2 new.raw disk.qcow2
img compare disk.qcow2 both.raw
img convert -l before disk.qcow2 snap.raw && cmp snap.raw old.raw && echo "snapshot as before"
img info disk.qcow2 | grep -E 'cluster_size|lazy'
cp old.raw disk.raw
img convert -n -f raw -O raw new.raw disk.raw && cmp disk.raw both.raw && echo "raw"
# Holes of the source become zeros of the target, unless it is said to be zero.
truncate -s 1M hole.raw
img convert -n -f raw -O qcow2 hole.raw disk.qcow2
{ head -c 1M /dev/zero; tail -c 2M old.raw; } | cmp - <(img convert -O raw --output=- disk.qcow2) && echo "zeros"
img convert -n -f raw -O qcow2 new.raw disk.qcow2
img convert -n --target-is-zero -f raw -O qcow2 hole.raw disk.qcow2
img compare disk.qcow2 both.raw
# Over a backing file zeros hide what is below.
img create -q -f qcow2 -b old.raw -F raw top.qcow2
img convert -n -f raw -O qcow2 hole.raw top.qcow2
{ head -c 1M /dev/zero; tail -c 2M old.raw; } | cmp - <(img convert -O raw --output=- top.qcow2) && echo "zeros above"
img check -q disk.qcow2 && img check -q top.qcow2 && echo "in order"
echo "--- what cannot be"
img convert -n -f raw -O qcow2 old.raw missing.qcow2
img create -q -f qcow2 small.qcow2 1M
img convert -n -f raw -O qcow2 old.raw small.qcow2
img convert -n -f raw -O qcow2 new.raw disk.raw
img convert -n -c -f raw -O qcow2 new.raw disk.qcow2
img convert -n -o cluster_size=64k -f raw -O qcow2 new.raw disk.qcow2
img convert --target-is-zero -f raw -O qcow2 new.raw x.qcow2
ls
