# SPDX-License-Identifier: GPL-2.0-or-later
# check -r: leaks only, or all; once repaired nothing is left to find, and the data is what it was.
be64() { echo $((0x$(od -An -tx8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '))); }
put() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
head -c 1M /dev/zero | tr '\0' a > disk.raw
img create -q -f qcow2 good.qcow2 1M
img convert -n -f raw -O qcow2 disk.raw good.qcow2
img snapshot -c one good.qcow2
block=$(be64 good.qcow2 65536); l1=$(be64 good.qcow2 40); l2=$(($(be64 good.qcow2 "$l1") & 0xfffffffffffe00))
data=$(($(be64 good.qcow2 $l2) & 0xfffffffffffe00))
broken() { cp good.qcow2 $1.qcow2; put $1.qcow2 "$2" "$3"; }
broken leak $((block + 2 * 60)) '\0\1'; truncate -s $((61 * 65536)) leak.qcow2
broken high $((block + 2 * data / 65536)) '\0\7'
broken low $((block + 2 * data / 65536)) '\0\1'
broken none $((block + 2 * data / 65536)) '\0\0'
broken copied "$l2" '\200'
broken blocks 65536 '\0\0\0\0\0\0\0\0'
broken dirty 79 '\1'
broken corrupt 79 '\2'
for f in leak high low none copied blocks dirty corrupt; do
	img check -q $f.qcow2 > /dev/null 2>&1; before=$?
	cp $f.qcow2 l.qcow2; img check -q -r leaks l.qcow2 > /dev/null 2>&1; leaks=$?
	img check -q -r all $f.qcow2 > /dev/null 2>&1; all=$?
	echo "$f: $before, -r leaks $leaks, -r all $all"
	img check -q $f.qcow2 || echo "$f: not repaired"
	img check -r all $f.qcow2 | head -n 1 | grep -vx 'No errors were found on the image.'
	img compare -q $f.qcow2 disk.raw || echo "$f: another disk"
	img convert --force -l one $f.qcow2 one.raw && cmp one.raw disk.raw
	img convert -n -f raw -O qcow2 disk.raw $f.qcow2 && img check -q $f.qcow2
done
