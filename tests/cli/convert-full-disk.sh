# SPDX-License-Identifier: GPL-2.0-or-later
# A disk that fills up: an error, nothing left, what was to be replaced still there.
mkdir small
mount -t tmpfs -o size=2m tmpfs small 2>/dev/null || { echo "mounting is not permitted"; exit 77; }
trap 'umount small' EXIT
head -c 8M /dev/zero | tr '\0' a > disk.raw
echo precious > small/old
# Where it hits the end depends on the number of threads.
try() { "$@" 2>&1 | sed -E 's/(byte|bytes at offset) [0-9]+/\1 N/g; s/[0-9]{4,}/N/g'; echo "exit ${PIPESTATUS[0]}"; }
for format in raw qcow2; do
	try img convert -O $format disk.raw small/new
	try img convert --force -O $format disk.raw small/old
done
try img create -q -f qcow2 -o preallocation=full small/new 8M
try img create -q -f raw -o preallocation=falloc small/new 8M
cat small/old
ls -A small
# An image in use on it: the write fails, what was written stays, and no cluster is lost.
img create -q -f qcow2 small/image.qcow2 8M
try img convert -n -O qcow2 disk.raw small/image.qcow2
img check -q small/image.qcow2
echo "check: $?"
rm small/image.qcow2
img create -q -f qcow2 small/image.qcow2 8M
head -c 2M /dev/urandom > small/rest 2> /dev/null
try img bench -w -c 128 -s 4k -S 64k small/image.qcow2 | grep -v Sending
img check -q small/image.qcow2
echo "check: $?"
rm small/rest small/image.qcow2
img create -q -f qcow2 small/image.qcow2 8M
img create -q -f qcow2 -b small/image.qcow2 -F qcow2 top.qcow2
img convert -n -O qcow2 disk.raw top.qcow2
try img commit top.qcow2
img check -q small/image.qcow2
echo "check: $?"
# The second part of the refcount block is not in the file before it is needed.
umount small
mount -t tmpfs -o size=40m tmpfs small
img create -q -f qcow2 -o refcount_bits=64 small/image.qcow2 1G
try img bench -w -c 16384 -s 64k -S 64k small/image.qcow2 | grep -v Sending
img check -q small/image.qcow2
echo "check: $?"
