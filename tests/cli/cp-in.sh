# SPDX-License-Identifier: GPL-2.0-or-later
# Into a guest and between guests: the file system is sound, and debugfs sees what was copied.
umask 022
copy() { img cp --isolation=process "$@"; echo "exit $?"; }
sound() { e2fsck -fn "$1" > fsck.out 2>&1 || cat fsck.out; }
look() { debugfs -R "$1" disk.raw 2> /dev/null; }
tree_of() { rm -rf seen; mkdir seen; debugfs -R "rdump $1 seen" "$2" 2> /dev/null > /dev/null; find seen -printf '%P %M %s %l\n' | sort; }

mkdir -p tree/sub/deep tree/empty
seq 100000 > tree/sub/numbers
echo key > tree/sub/deep/key
chmod 600 tree/sub/deep/key
ln tree/sub/deep/key tree/again
ln -s sub/numbers tree/link
truncate -s 30M tree/sparse
printf middle | dd of=tree/sparse bs=1 seek=15000000 conv=notrunc status=none
touch -d @1000000000 tree/sub/numbers tree/sub tree/link -h
python3 -c "import os; os.setxattr('tree/sub/numbers', 'user.k', b'v')" || { echo "no extended attributes"; exit 77; }
mkdir -p guest/etc
echo old > guest/etc/file
chmod 640 guest/etc/file
ln -s etc guest/abc
mke2fs -q -t ext4 -d guest disk.raw 64M > mke2fs.out 2>&1 || cat mke2fs.out
debugfs -w -R 'sif /etc/file uid 42' disk.raw > /dev/null 2>&1
debugfs -w -R 'ea_set /etc/file user.old kept' disk.raw > /dev/null 2>&1

echo "-- one file"
echo new > file
copy file disk.raw:/etc
copy file disk.raw:/etc/new
copy file disk.raw:/abc/through
copy /dev/stdin disk.raw:/etc/piped <<< piped
copy tree/sparse disk.raw:/holes
look 'cat /etc/file'
look 'cat /etc/through'
look 'cat /etc/piped'
look 'stat /etc/file' | grep -o 'User: *[0-9]*\|Mode: *[0-9]*'
look 'ea_get /etc/file user.old'
look 'stat /etc/new' | grep -o 'User: *[0-9]*\|Mode: *[0-9]*'
look 'stat /holes' | grep -o 'Size: [0-9]*$\|Blockcount: [0-9]*'
look 'dump /holes holes'
cmp holes tree/sparse
sound disk.raw

echo "-- trees"
copy -r tree disk.raw:/copy
copy -a tree disk.raw:/etc
sound disk.raw
tree_of /copy disk.raw
tree_of /etc/tree disk.raw > list
diff -r --no-dereference seen/tree tree && echo same
look 'stat /etc/tree/again' | grep -o 'Links: [0-9]*'
look 'stat /etc/tree/sub/numbers' | grep -o 'mtime: 0x[0-9a-f]*'
look 'stat /etc/tree/sub' | grep -o 'mtime: 0x[0-9a-f]*'
look 'ea_get /etc/tree/sub/numbers user.k'
# What is there keeps its mode without -p.
chmod 700 tree tree/sub
chmod 644 tree/sub/deep/key
echo more >> tree/sub/deep/key
copy -r tree/. disk.raw:/copy
look 'stat /copy/sub' | grep -o 'Mode: *[0-9]*'
look 'stat /copy/sub/deep/key' | grep -o 'Mode: *[0-9]*'
look 'cat /copy/sub/deep/key'
sound disk.raw

echo "-- between guests"
img create -q -f qcow2 other.qcow2 64M
mke2fs -q -t ext4 other.raw 64M > mke2fs.out 2>&1
img convert -O qcow2 other.raw other.qcow2 --force
copy -a disk.raw:/etc/tree other.qcow2:/
copy other.qcow2:/tree/sub/numbers disk.raw:/numbers
copy -a other.qcow2:/tree other.qcow2:/tree/sub
img snapshot -c before other.qcow2
copy -r other.qcow2@before:/tree/sub other.qcow2:/back
img convert -O raw other.qcow2 --force other.raw
sound other.raw
sound disk.raw
tree_of /tree other.raw
tree_of /back other.raw | grep -c .
look 'dump /numbers numbers'
cmp numbers tree/sub/numbers && echo same

echo "-- mistakes"
copy tree disk.raw:/x
copy nothing disk.raw:/
copy file nothing disk.raw:/etc
copy file disk.raw:/no/such
copy file file disk.raw:/etc/file
copy -r tree disk.raw:/etc/file
copy file other.qcow2@before:/
copy file disk.raw:/etc/tree/sub/
mkdir abc
copy -r abc disk.raw:/
copy -r --keep-directory-symlink abc disk.raw:/
img create -q -f qcow2 -b disk.raw -F raw over.qcow2
copy file over.qcow2:/only-here
look 'stat /only-here' | grep -c Mode
sound disk.raw

echo "-- a guest that is full"
mke2fs -q -t ext4 small.raw 4M > mke2fs.out 2>&1
head -c 6M /dev/urandom > big
mkdir many
for i in 1 2 3 4 5 6; do head -c 1M /dev/urandom > many/$i; done
copy file small.raw:/precious
copy big small.raw:/precious 2>&1 | sed 's/inode [0-9]*/inode …/'
debugfs -R 'cat /precious' small.raw 2> /dev/null
debugfs -R 'ls -p /' small.raw 2> /dev/null | grep -c img
copy -r many small.raw:/ 2>&1 | sed 's/inode [0-9]*/inode …/'
sound small.raw
