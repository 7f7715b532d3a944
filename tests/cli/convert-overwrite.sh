# SPDX-License-Identifier: GPL-2.0-or-later
# convert never replaces a file that holds something, unless told to; under the peer's name it does.
head -c 1M /dev/zero | tr '\0' a > disk.raw
echo precious > target
img convert disk.raw target
echo "exit $?"
img convert -O qcow2 disk.raw target
echo "exit $?"
cat target
img convert -O qcow2 --force disk.raw target
img compare disk.raw target
: > empty
chmod 600 empty
img convert disk.raw empty
cmp disk.raw empty
stat -c %a empty
ln -s "$IMG" "$TMPDIR/qemu-img"
echo precious > target
"$TMPDIR/qemu-img" convert disk.raw target
cmp disk.raw target
"$TMPDIR/qemu-img" create -q target 2M
stat -c %s target
ls -A
