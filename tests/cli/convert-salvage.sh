# SPDX-License-Identifier: GPL-2.0-or-later
# --salvage goes on where the source cannot be read, with zeros there; without it that is the end.
be64() { echo $((0x$(od -An -tx8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '))); }
put() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
head -c 256k /dev/zero | tr '\0' a > disk.raw
img convert -c -O qcow2 disk.raw bad.qcow2
# The second of four compressed clusters is no deflate stream any more.
at=$(be64 bad.qcow2 40); at=$(($(be64 bad.qcow2 "$at") & 0xfffffffffffe00))
put bad.qcow2 $(($(be64 bad.qcow2 $((at + 8))) & 0x3fffffffffffff)) '\377\377\377\377'
img convert bad.qcow2 no.raw 2>&1 | sed -E 's/at (byte|offset) [0-9]+/at \1 N/g'
echo "exit ${PIPESTATUS[0]}"
img convert --salvage bad.qcow2 out.raw 2>&1 | sed -E 's/(at )?(byte|offset) [0-9]+/\1\2 N/g'
echo "exit ${PIPESTATUS[0]}"
{ head -c 64k disk.raw; head -c 64k /dev/zero; head -c 128k disk.raw; } | cmp - out.raw && echo "zeros there"
img convert --salvage -c -O qcow2 bad.qcow2 out.qcow2 2> /dev/null
img compare out.raw out.qcow2
img checksum bad.qcow2 > sum 2> /dev/null
echo "checksum: exit $?, $(wc -c < sum) bytes"
echo "--- only a snapshot has it"
img snapshot -c old bad.qcow2
qemu-io -c 'write -q -P 0x61 64k 64k' bad.qcow2
img convert --snapshots -O qcow2 bad.qcow2 no.qcow2 2>&1 | sed -E 's/at (byte|offset) [0-9]+/at \1 N/g'
echo "exit ${PIPESTATUS[0]}"
img convert --salvage --snapshots -O qcow2 bad.qcow2 snap.qcow2 2>&1 |
	sed -E 's/(at )?(byte|offset) [0-9]+/\1\2 N/g'
echo "exit ${PIPESTATUS[0]}"
img compare disk.raw snap.qcow2
img convert -l old snap.qcow2 old.raw
cmp old.raw out.raw && echo "zeros there"
ls
