# SPDX-License-Identifier: GPL-2.0-or-later
# An archive into a guest: the file system is sound, and holds what GNU tar put in; nothing that the
# archive says leads out of the directory.
umask 022
export LC_ALL=C
tar_in() { img tar in --isolation=process "$@"; echo "exit $?"; }
sound() { e2fsck -fn "$1" > fsck.out 2>&1 || cat fsck.out; }
facts() { (cd "$1" && find . -printf '%P %M %n %s %T@ %l\n' | sort); }
back() { rm -rf back; img cp --isolation=process -a "$1" back 2> /dev/null; }

mkdir -p tree/a/b tree/empty
seq 50000 > tree/a/numbers
ln tree/a/numbers tree/a/b/again
ln -s a/numbers tree/link
ln -s /nowhere tree/dangling
truncate -s 30M tree/sparse
printf middle | dd of=tree/sparse bs=1 seek=15000000 conv=notrunc status=none
mkfifo tree/pipe
touch tree/ümläut "tree/$(printf 'bytes\377\376')"
chmod 750 tree/a/b
python3 -c "import os; os.setxattr('tree/a/numbers', 'user.k', b'v')" || { echo "no extended attributes"; exit 77; }
touch -h -d @1000000000.25 tree/*/*/* tree/*/* tree/* tree
mke2fs -q -t ext4 -I 256 disk.raw 64M > mke2fs.out 2>&1
debugfs -w -R 'rmdir lost+found' disk.raw > /dev/null 2>&1

echo "-- GNU tar"
for format in pax gnu; do
	tar -C tree --format=$format --xattrs --sparse -cf $format.tar .
	debugfs -w -R "mkdir /$format" disk.raw > /dev/null 2>&1
	tar_in disk.raw:/$format < $format.tar
	sound disk.raw
	back disk.raw:/$format
	diff -r --no-dereference -x pipe tree back && echo same
done
back disk.raw:/pax
diff <(facts tree) <(facts back) && echo facts
python3 -c "import os; print(os.getxattr('back/a/b/again', 'user.k'))"
[ "$(stat -c %b back/sparse)" -lt 200 ] && echo holes

echo "-- again, and compressed"
for c in gzip bzip2 xz zstd; do
	command -v $c > /dev/null || { echo "exit 0"; continue; }
	$c < pax.tar > pax.$c
	tar_in disk.raw:/pax -f pax.$c
done
sound disk.raw

echo "-- ACLs"
python3 - << 'END'
import tarfile
with tarfile.open('acl.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
    for name, acl in (('numbers', 'user::rw-,user:1234:rwx,group::r--,mask::rwx,other::---'),
                      ('names', 'user::rw-,user:nobody-here:r--,group::r--,mask::r--,other::---')):
        info = tarfile.TarInfo(name)
        info.mode = 0o640
        info.pax_headers = {'SCHILY.acl.access': acl}
        tar.addfile(info)
END
tar_in disk.raw:/ -f acl.tar
img stat --isolation=process --output=json disk.raw:/numbers | grep -o '"mode": "[^"]*"'
sound disk.raw

echo "-- hostile"
python3 - << 'END'
import io, tarfile

def add(tar, name, kind=tarfile.REGTYPE, link='', data=b'evil\n'):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    tar.addfile(info, io.BytesIO(data))

with tarfile.open('dots.tar', 'w') as tar:
    add(tar, '../out')
    add(tar, 'a/../../out')
    add(tar, '/absolute')
    add(tar, './/twice//b')
    add(tar, 'hard', tarfile.LNKTYPE, '../../precious')
with tarfile.open('through.tar', 'w') as tar:
    add(tar, 'link', tarfile.SYMTYPE, '/')
    add(tar, 'link/out')
with tarfile.open('up.tar', 'w') as tar:
    add(tar, 'dir', tarfile.DIRTYPE)
    add(tar, 'dir', tarfile.SYMTYPE, '..')
END
debugfs -w -R 'mkdir /box' disk.raw > /dev/null 2>&1
tar_in disk.raw:/box -f dots.tar
tar_in disk.raw:/box -f through.tar
tar_in disk.raw:/box -f up.tar
back disk.raw:/box
(cd back && find . | sort)
debugfs -R 'ls -p /' disk.raw 2> /dev/null | grep -c '/out/'
sound disk.raw

echo "-- mistakes"
head -c 20000 pax.tar > cut.tar
tar_in disk.raw:/box -f cut.tar
tar_in disk.raw:/box <<< "no archive"
tar_in disk.raw:/nothing -f pax.tar
tar_in disk.raw:/box -f nothing
img convert -O qcow2 disk.raw disk.qcow2
img snapshot -c before disk.qcow2
tar_in disk.qcow2@before:/ -f pax.tar
sound disk.raw

echo "-- a guest that is full"
mke2fs -q -t ext4 small.raw 4M > mke2fs.out 2>&1
mkdir many
for i in 1 2 3 4 5 6; do head -c 1M /dev/urandom > many/$i; done
tar -c many | tar_in small.raw:/ 2>&1 | sed 's/inode [0-9]*/inode …/'
sound small.raw
