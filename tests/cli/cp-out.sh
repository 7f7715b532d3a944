# SPDX-License-Identifier: GPL-2.0-or-later
# Out of a guest: the same bytes, holes, links, modes, times and attributes; cp(1)'s rules for names.
umask 022
copy() { img cp --isolation=process "$@"; echo "exit $?"; }
list() { find "$@" -printf '%P %M %n %s %l\n' | sort; }

mkdir -p tree/etc/conf.d tree/empty
echo hosts > tree/etc/hosts
ln tree/etc/hosts tree/etc/again
ln -s hosts tree/etc/link
ln -s /nowhere tree/etc/dangling
echo secret > tree/etc/conf.d/key
chmod 640 tree/etc/conf.d/key
chmod 775 tree/etc/conf.d
truncate -s 20M tree/sparse
printf end | dd of=tree/sparse bs=1 seek=9000000 conv=notrunc status=none
mkfifo tree/pipe
touch -d @1000000000 tree/etc/hosts
touch -d @1000000001 tree/etc
python3 -c "import os; os.setxattr('tree/etc/hosts', 'user.k', b'v')" || { echo "no extended attributes"; exit 77; }
mke2fs -q -t ext4 -I 256 -d tree disk.raw 64M > mke2fs.out 2>&1 || cat mke2fs.out
debugfs -w -R 'rmdir lost+found' disk.raw > /dev/null 2>&1
img convert -O qcow2 disk.raw disk.qcow2
img snapshot -c before disk.qcow2

echo "-- one file"
copy disk.qcow2:/etc/hosts .
copy disk.qcow2@before:/etc/hosts named
copy disk.qcow2:/etc/link disk.raw:/etc/conf.d/key tree/empty
copy disk.raw:/etc/hosts /dev/stdout
cat hosts named tree/empty/link tree/empty/key
rm tree/empty/*
stat -c '%n %A' hosts named

echo "-- what is there"
echo old > mine
chmod 600 mine
ln -s mine to-mine
copy disk.raw:/etc/hosts to-mine
stat -c '%N %A' mine to-mine
cat mine
ln -s nowhere leads-nowhere
copy disk.raw:/etc/hosts leads-nowhere
mkdir hosts.d
copy disk.raw:/etc/hosts hosts.d
ls hosts.d

echo "-- trees"
copy -r disk.qcow2:/etc etc
list etc
copy -r disk.qcow2:/etc etc
list etc/etc/conf.d
copy -a disk.qcow2:/ all 2> all.err
cat all.err
list all tree > lists
diff <(list all) <(list tree) && diff -r --no-dereference -x pipe all tree && echo same
diff <(cd all; find . ! -type l ! -name . -newermt @999999999 ! -newermt @1000000002 -printf '%P %T@\n' | sort) \
	<(cd tree; find . ! -type l ! -name . -newermt @999999999 ! -newermt @1000000002 -printf '%P %T@\n' | sort) && echo times
python3 -c "import os; print(os.getxattr('all/etc/again', 'user.k'))"
[ "$(stat -c %b all/sparse)" -lt 200 ] && echo holes
copy -r disk.raw:/etc/. contents
ls contents

echo "-- mistakes"
copy disk.raw:/etc .
copy disk.raw:/pipe .
copy disk.raw:/nothing .
copy disk.raw:/etc/hosts disk.raw:/etc/link nodir
copy disk.raw:/etc/hosts nodir/
copy disk.raw:/etc/hosts nodir/file
copy -r disk.raw:/etc hosts
copy hosts named
copy disk.raw:/etc/hosts
mkdir blocked blocked/hosts
copy disk.raw:/etc/hosts disk.raw:/etc/conf.d/key blocked
list blocked
find . -name '.img-cp*' | wc -l
