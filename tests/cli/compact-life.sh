# SPDX-License-Identifier: GPL-2.0-or-later
# compact: holes are closed, snapshots and data stay, what cannot be done is refused untouched.
head -c 4M /dev/zero | tr '\0' a > a.raw
{ head -c 2M /dev/zero; head -c 2M /dev/zero | tr '\0' b; } > b.raw
img convert -O qcow2 a.raw disk.qcow2
img snapshot -c first disk.qcow2
img convert -n -O qcow2 b.raw disk.qcow2
img snapshot -c second disk.qcow2
img snapshot -d first disk.qcow2
img compact --output=json disk.qcow2
img compact disk.qcow2
img check -q disk.qcow2
img compare -q disk.qcow2 b.raw
img convert -l second -O raw disk.qcow2 second.raw && cmp second.raw b.raw
[ "$(stat -c %s disk.qcow2)" -lt 3000000 ] || stat -c %s disk.qcow2

echo "refused:"
img compact a.raw; echo "raw: $?"
img compact; echo "nothing: $?"
cp disk.qcow2 bad.qcow2
be64() { echo $((0x$(od -An -tx8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '))); }
# The refcount of the header.
printf '\0\0' | dd of=bad.qcow2 bs=1 seek="$(be64 bad.qcow2 "$(be64 bad.qcow2 48)")" conv=notrunc status=none
cp bad.qcow2 copy.qcow2
img compact bad.qcow2; echo "corrupt: $?"
cmp bad.qcow2 copy.qcow2
img compact --output=xml disk.qcow2; echo "xml: $?"
img compact -f qcow2 b.raw; echo "not qcow2: $?"
