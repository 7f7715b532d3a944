# SPDX-License-Identifier: GPL-2.0-or-later
# raw through pipes, in and out.
{ head -c 1M /dev/zero | tr '\0' a; head -c 3M /dev/zero; printf end; } > disk.raw
truncate -s %512 disk.raw
img convert -O qcow2 disk.raw disk.qcow2
img convert --output=- disk.qcow2 | cmp - disk.raw && echo "out of qcow2"
img convert -f raw -O qcow2 - in.qcow2 < disk.raw && img compare disk.raw in.qcow2
cat disk.raw | img convert -f raw -O raw - in.raw && cmp disk.raw in.raw && echo "into raw"
cat disk.raw | img convert -f raw -O raw - --output=- | cmp - disk.raw && echo "through"
cat disk.raw | img convert -f raw -c -O qcow2 - --output=- > both.qcow2
img compare disk.raw both.qcow2
# Zeros become holes in a file, whatever the source could tell of them.
cat disk.raw | img convert -f raw -O raw - sparse.raw
test "$(stat -c %b sparse.raw)" -le 2056 && echo sparse
echo "--- what cannot be"
cat disk.qcow2 | img convert -O raw - x.raw
echo "exit $?"
cat disk.qcow2 | img convert -f qcow2 -O raw - x.raw
echo "exit $?"
cat disk.raw | img convert -f raw -l snap - x.raw
echo "exit $?"
img convert disk.raw
ls -A
