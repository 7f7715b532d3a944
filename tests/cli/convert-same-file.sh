# SPDX-License-Identifier: GPL-2.0-or-later
# The source is never its own target: not by another name, and not a file of its backing chain.
head -c 1M /dev/zero | tr '\0' a > disk.raw
img create -q -f qcow2 -b disk.raw -F raw top.qcow2
ln disk.raw hard.raw
ln -s disk.raw soft.raw
for target in disk.raw ./disk.raw hard.raw soft.raw; do
	img convert --force -f raw disk.raw $target
	echo "exit $?"
	img convert --force -O raw top.qcow2 $target
	echo "exit $?"
	img convert -n -f raw disk.raw $target
	echo "exit $?"
done
sha256sum < disk.raw
ls -A
