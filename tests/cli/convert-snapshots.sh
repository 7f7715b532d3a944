# SPDX-License-Identifier: GPL-2.0-or-later
# convert --snapshots: the snapshots are in the target, too; what cannot be is said, and leaves nothing.
fill() {
	qemu-io -c "write -q -P $1 $2" "$3"
}
list() {
	img snapshot -l "$1" | sed 's/20[0-9-]* [0-9:]*/DATE/'
}
img create -q -f qcow2 disk.qcow2 8M
fill 1 '0 4M' disk.qcow2
img snapshot -c one disk.qcow2
fill 2 '1M 64k' disk.qcow2
img snapshot -c two disk.qcow2
img snapshot -d one disk.qcow2
img snapshot -c three disk.qcow2
img resize -q disk.qcow2 9M
fill 3 '8M 64k' disk.qcow2
img convert --snapshots -O qcow2 disk.qcow2 copy.qcow2
list copy.qcow2
img check copy.qcow2 | head -n 1
img compare disk.qcow2 copy.qcow2
for s in two three; do
	img convert -l $s disk.qcow2 a.raw
	img convert -l $s copy.qcow2 b.raw
	cmp a.raw b.raw && stat -c '%n %s' b.raw
	rm a.raw b.raw
done
echo "--- shared data is stored once: less than twice of 4 MiB"
[ "$(stat -c %s copy.qcow2)" -lt 6000000 ] && echo yes
echo "--- without a snapshot in it"
img create -q -f qcow2 plain.qcow2 1M
img convert --snapshots -O qcow2 plain.qcow2 none.qcow2 && list none.qcow2
echo "--- through a pipe, and over an image that is there"
img convert --snapshots -c -O qcow2 disk.qcow2 - | cat > piped.qcow2
list piped.qcow2
img create -q -f qcow2 there.qcow2 9M
fill 9 '0 9M' there.qcow2
img convert --snapshots -n -O qcow2 disk.qcow2 there.qcow2
list there.qcow2
img compare disk.qcow2 there.qcow2
img check there.qcow2 | head -n 1
echo "--- what cannot be"
no() {
	img convert --snapshots "$@"
	echo "exit $?"
}
img create -q raw.img 1M
img create -q -f qcow2 small.qcow2 1M
img create -q -f qcow2 -b plain.qcow2 -F qcow2 over.qcow2 9M
no disk.qcow2 new
no -l two -O qcow2 disk.qcow2 new
no -O qcow2 disk.qcow2 plain.qcow2 new
no -O qcow2 raw.img new
no -O qcow2 -b plain.qcow2 -F qcow2 disk.qcow2 new
no -O qcow2 -o compat=0.10 disk.qcow2 new
no -O qcow2 -o refcount_bits=1 disk.qcow2 new
no -O qcow2 -o data_file=data disk.qcow2 new
img create -q -f qcow2 -o cluster_size=2M huge.qcow2 1T
img snapshot -c huge huge.qcow2
img resize -q --shrink huge.qcow2 1M
no -O qcow2 -o cluster_size=512 huge.qcow2 new
no -n -O qcow2 disk.qcow2 copy.qcow2
no -n -O qcow2 disk.qcow2 small.qcow2
no -n -O qcow2 disk.qcow2 over.qcow2
no -n -O raw disk.qcow2 raw.img
no -f raw -O qcow2 - new < <(head -c 1M /dev/zero)
echo "--- 2 bits count to 3"
for i in 1 2; do img snapshot -c more$i disk.qcow2; done
no -O qcow2 -o refcount_bits=2 disk.qcow2 new
ls -A
