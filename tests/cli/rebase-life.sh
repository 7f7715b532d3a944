# SPDX-License-Identifier: GPL-2.0-or-later
# rebase under our own name: what it prints, what it refuses, that the disk stays the same.
img create -q -f qcow2 old.qcow2 2M
qemu-io -c 'write -q -P 1 0 1M' old.qcow2
img create -q -f qcow2 new.qcow2 3M
qemu-io -c 'write -q -P 1 0 512k' -c 'write -q -P 2 1M 2M' new.qcow2
img create -q -f qcow2 -b old.qcow2 -F qcow2 top.qcow2 2560k
qemu-io -c 'write -q -P 2 1M 64k' -c 'write -q -P 3 64k 64k' top.qcow2
img checksum top.qcow2 > before
cp top.qcow2 top.orig

show() {
	img info --output=json top.qcow2 | grep -o '"backing-filename": .*'
	img checksum top.qcow2 | cmp - before
	img check -q top.qcow2
	img map --output=json top.qcow2 | grep -c '"depth": 0.*"present": true'
}

echo '== safe'
img rebase -b new.qcow2 -F qcow2 top.qcow2
show
echo '== equal clusters go'
img rebase --drop-equal -b new.qcow2 -F qcow2 top.qcow2
show
echo '== and equal subclusters'
img create -q -f qcow2 -o extended_l2=on -b old.qcow2 -F qcow2 sub.qcow2
qemu-io -c 'write -q -P 1 0 4k' -c 'write -q -P 9 8k 2k' -c 'write -q -P 1 10k 2k' sub.qcow2
qemu-io -c 'write -q -P 2 1M 64k' -c 'write -q -z 80k 4k' sub.qcow2
img checksum sub.qcow2 > sub.before
img rebase --drop-equal -b new.qcow2 -F qcow2 sub.qcow2
img checksum sub.qcow2 | cmp - sub.before
img check -q sub.qcow2
img map --output=json sub.qcow2 | grep -o '"start.*"depth": 0, "present": true'
echo '== and zeros, where the backing file ends in a cluster'
img create -q -f raw short.raw 1028k
qemu-io -f raw -c 'write -q -P 1 0 64k' short.raw
img create -q -f qcow2 -b short.raw -F raw zero.qcow2 2M
qemu-io -c 'write -q -P 5 0 64k' -c 'write -q -z 1M 64k' zero.qcow2
img rebase -m 1 --drop-equal -b short.raw -F raw zero.qcow2
img map --output=json zero.qcow2 | grep -o '"start.*"depth": 0, "present": true'
echo '== back, compressed'
img rebase --compress --backing=old.qcow2 -B qcow2 top.qcow2
show
echo '== to nothing'
img rebase -c -m 1 -b '' top.qcow2
show
echo '== unsafe'
cp top.orig top.qcow2
img rebase -u -b "$PWD/old.qcow2" -F qcow2 top.qcow2
img checksum top.qcow2 | cmp - before
img rebase --backing-unsafe --backing=missing --backing-format=raw top.qcow2
img info top.qcow2 | grep backing

echo '== refused'
cp top.orig top.qcow2
img rebase -b new.qcow2 top.qcow2
img rebase -b nowhere -F raw top.qcow2
img rebase -b new.qcow2 -F nosuch top.qcow2
img rebase -u -b top.qcow2 -F qcow2 top.qcow2
img rebase -u -c -b new.qcow2 -F qcow2 top.qcow2
img rebase -b top.qcow2 -F qcow2 -U old.qcow2
img rebase top.qcow2
img rebase
img rebase -b '' -f raw old.qcow2
img rebase -b x:y -F raw top.qcow2
img rebase --untrusted -b new.qcow2 -F qcow2 top.qcow2
cmp top.qcow2 top.orig
img snapshot -c one top.qcow2
img rebase -b new.qcow2 -F qcow2 top.qcow2
show
