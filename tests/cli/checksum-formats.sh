# SPDX-License-Identifier: GPL-2.0-or-later
# checksum: one sum for one disk, in any format and however it is stored.
{ seq 100000; head -c 3M /dev/zero; seq 1000; } > disk.raw
truncate -s %512 disk.raw
img convert -S 0 disk.raw dense.raw
img convert -O qcow2 disk.raw a.qcow2
img convert -c -O qcow2 -o cluster_size=4k disk.raw c.qcow2
img convert -c -O qcow2 -o compression_type=zstd,cluster_size=2M disk.raw z.qcow2
img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
img create -q -f qcow2 s.qcow2 "$(stat -c %s disk.raw)"
img convert -n -f raw -O qcow2 disk.raw s.qcow2
img snapshot -c 'then' s.qcow2
for f in disk.raw dense.raw a.qcow2 c.qcow2 z.qcow2 top.qcow2 s.qcow2; do img checksum $f; done | sed 's/ .*//' | sort | uniq -c | sed 's/ *\([0-9]*\) [0-9a-f]\{64\}$/\1 times one sum/'
sum() { img checksum "$@" | cut -d' ' -f1; }
same=$(sum disk.raw)
test "$(sum -l 'then' s.qcow2)" = "$same" && echo "of a snapshot"
test "$(sum -m 1 c.qcow2)" = "$same" && test "$(sum -m 7 c.qcow2)" = "$same" && echo "with any number of threads"
# One bit, and one byte more, make another sum. So does the same in another place.
cp disk.raw other.raw; printf '\1' | dd of=other.raw bs=1 seek=2000000 conv=notrunc status=none
test "$(sum other.raw)" != "$same" && echo "another byte"
cp disk.raw longer.raw; truncate -s +512 longer.raw
test "$(sum longer.raw)" != "$same" && echo "another size"
{ head -c 1M /dev/zero; cat disk.raw; } > moved.raw
{ cat disk.raw; head -c 1M /dev/zero; } > padded.raw
test "$(sum moved.raw)" != "$(sum padded.raw)" && echo "another place"
img checksum -a sha512 disk.raw | cut -d' ' -f1 | tr -d '\n' | wc -c
img checksum -a blake2b512 --output=json disk.raw | sed 's/"[0-9a-f]\{128\}"/"SUM"/'
echo "--- what cannot be"
img checksum -a nonsense disk.raw
img checksum missing.raw
img checksum -l nonsense s.qcow2
img checksum -l 'then' disk.raw
echo "exit $?"
