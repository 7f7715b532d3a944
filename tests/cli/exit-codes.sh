# SPDX-License-Identifier: GPL-2.0-or-later
# The exit codes that scripts look at.
try() { "$@" > /dev/null 2>&1; echo "$? ${*:2}"; }
be64() { echo $((0x$(od -An -tx8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '))); }
put() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
head -c 256k /dev/zero | tr '\0' a > disk.raw
# cluster 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, 5 … data
img create -q -f qcow2 good.qcow2 256k
img convert -n -O qcow2 disk.raw good.qcow2
block=$(be64 good.qcow2 65536)
data=$(img map --output=json good.qcow2 | sed -n 's/.*"offset": \([0-9]*\)}.*/\1/p' | head -n 1)
cp good.qcow2 leak.qcow2; put leak.qcow2 $((block + 2 * 40)) '\0\1'; truncate -s $((41 * 65536)) leak.qcow2
cp good.qcow2 bad.qcow2; put bad.qcow2 $((block + 2 * data / 65536)) '\0\0'
cp good.qcow2 both.qcow2; put both.qcow2 $((block + 2 * data / 65536)) '\0\0'
put both.qcow2 $((block + 2 * 40)) '\0\1'; truncate -s $((41 * 65536)) both.qcow2
cp good.qcow2 cut.qcow2; truncate -s 100 cut.qcow2
cp disk.raw other.raw; put other.raw 100000 b
for f in good leak bad both cut missing; do try img check $f.qcow2; done
try img check disk.raw
try img check -f raw disk.raw
try img check --nonsense good.qcow2
try img check
for f in leak bad both; do
	cp $f.qcow2 r.qcow2; try img check -r leaks r.qcow2
	cp $f.qcow2 r.qcow2; try img check -r all r.qcow2
	try img check r.qcow2
done
try img compare disk.raw good.qcow2
try img compare disk.raw other.raw
try img compare -s disk.raw good.qcow2
try img compare disk.raw missing.raw
try img compare disk.raw cut.qcow2
try img compare disk.raw
try img compare --nonsense disk.raw good.qcow2
img convert -c -O qcow2 disk.raw coded.qcow2
# The first compressed cluster: L1, its first L2 table, the first entry's low 54 bits.
at=$(be64 coded.qcow2 40); at=$(($(be64 coded.qcow2 "$at") & 0xfffffffffffe00))
put coded.qcow2 $(($(be64 coded.qcow2 $at) & 0x3fffffffffffff)) '\377\377\377\377'
try img compare disk.raw coded.qcow2
for c in create info convert resize amend dd bench snapshot map measure checksum; do try img $c; done
try img
try img nonsense
try img --help
