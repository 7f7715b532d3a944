# SPDX-License-Identifier: GPL-2.0-or-later
# Started without a standard stream: an image never takes its number, so nothing is printed into it.
img create -q -f qcow2 disk.qcow2 1M
# Each of these opens the image for writing, and then has something to say.
img resize disk.qcow2 2M >&-
echo "exit $?"
img compact disk.qcow2 >&-
echo "exit $?"
img sparsify --zero-scan disk.qcow2 >&-
echo "exit $?"
img dedup disk.qcow2 >&-
echo "exit $?"
img bench -w -c 1 disk.qcow2 >&-
echo "exit $?"
img bench -w -c 1 disk.qcow2 > /dev/full
echo "exit $?"
img commit disk.qcow2 2>&-
echo "exit $?"
img bitmap --add disk.qcow2 b <&- >&- 2>&-
echo "exit $?"
img convert -f raw -O raw - copy.raw <&-
echo "exit $?"
img check disk.qcow2
# The peer does not mind.
ln -s "$(command -v img)" qemu-img
./qemu-img resize disk.qcow2 3M >&-
echo "exit $?"
./qemu-img check disk.qcow2
rm qemu-img
ls
