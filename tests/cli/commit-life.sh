# SPDX-License-Identifier: GPL-2.0-or-later
# commit under our own name: what it prints, what it refuses, that nothing is lost then.
img create -q -f qcow2 base.qcow2 2M
qemu-io -c 'write -q -P 1 0 1M' base.qcow2
img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
qemu-io -c 'write -q -P 2 512k 1M' mid.qcow2
img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 3M
qemu-io -c 'write -q -P 3 1M 64k' -c 'write -q -P 4 2560k 64k' top.qcow2
img checksum top.qcow2 > before

echo '== to the backing file'
cp base.qcow2 base.orig; cp mid.qcow2 mid.orig; cp top.qcow2 top.orig
img commit top.qcow2
img checksum top.qcow2 | cmp - before
img checksum mid.qcow2 | cut -d' ' -f1 | cmp - <(cut -d' ' -f1 before)
img map --backing-chain top.qcow2 | cut -c33- | sort -u
img commit -q top.qcow2

echo '== deeper'
cp mid.orig mid.qcow2; cp top.orig top.qcow2
img commit --base=base.qcow2 --rate-limit=1G --parallel=2 top.qcow2
img checksum base.qcow2 | cut -d' ' -f1 | cmp - <(cut -d' ' -f1 before)
cmp mid.qcow2 mid.orig
img check -q base.qcow2

echo '== refused'
cp base.orig base.qcow2; cp mid.orig mid.qcow2; cp top.orig top.qcow2
img snapshot -c one top.qcow2
img commit top.qcow2
img commit -b nowhere.qcow2 top.qcow2
img commit base.qcow2
img commit --untrusted top.qcow2
img commit
img commit top.qcow2 mid.qcow2
img commit -m 0 top.qcow2
cmp mid.qcow2 mid.orig
img checksum top.qcow2 | cmp - before

echo '== with snapshots, not emptied'
img commit -d top.qcow2
img checksum top.qcow2 | cmp - before

echo '== in use'
cp mid.orig mid.qcow2
stdbuf -oL qemu-io -c length -c 'sleep 20000' mid.qcow2 > held &
holder=$!
until [ -s held ]; do :; done
img commit -d top.qcow2
kill $holder
wait $holder 2> /dev/null
cmp mid.qcow2 mid.orig
