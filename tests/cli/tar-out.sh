# SPDX-License-Identifier: GPL-2.0-or-later
# A guest's tree as an archive: GNU tar lists and extracts it to what it was.
umask 022
export LC_ALL=C
tar_out() { img tar out --isolation=process "$@"; }
facts() { (cd "$1" && find . -printf '%P %M %n %s %l %U\n' | sort); }
attributes() { python3 - "$1" << 'END'
import os, sys
os.chdir(sys.argv[1])
for top, dirs, files in os.walk('.'):
    for name in sorted(dirs + files):
        path = os.path.join(top, name)
        for attr in sorted(os.listxattr(path, follow_symlinks=False)):
            print(path, attr, os.getxattr(path, attr, follow_symlinks=False).hex())
END
}

mkdir -p tree/a/b tree/empty tree/read-only tree/deep/er
echo file > tree/a/file
ln tree/a/file tree/a/b/again
ln -s a/file tree/link
seq 100000 > tree/deep/numbers
truncate -s 40M tree/sparse
printf middle | dd of=tree/sparse bs=1 seek=20000000 conv=notrunc status=none
printf end | dd of=tree/sparse bs=1 seek=41943037 conv=notrunc status=none
truncate -s 1M tree/hole
touch tree/ümläut "tree/$(printf 'new\nline')" "tree/$(printf 'x%.0s' {1..200})"
mkfifo tree/pipe
chmod 4711 tree/a/file
chmod 555 tree/read-only
python3 - << 'END' || { echo "no extended attributes"; exit 77; }
import os
os.setxattr('tree/a/file', 'user.k', b'value')
os.setxattr('tree/deep', 'user.d', b'\0binary\xff')
END
touch -h -d @1000000000 tree/*/*/* tree/*/* tree/* tree
mke2fs -q -t ext4 -I 256 -d tree disk.raw 96M > mke2fs.out 2>&1 || cat mke2fs.out
debugfs -w -R 'rmdir lost+found' disk.raw > /dev/null 2>&1
img convert -O qcow2 disk.raw disk.qcow2

tar_out disk.qcow2:/ > x.tar
echo "exit $?"
tar -tf x.tar
[ "$(stat -c %s x.tar)" -lt 1000000 ] && echo "holes take no space"
mkdir x
tar -C x --xattrs --xattrs-include='*' -xpf x.tar
diff <(facts tree) <(facts x) && diff -r --no-dereference -x pipe tree x && echo same
diff <(attributes tree) <(attributes x) && echo attributes
find x -newermt @1000000001 ! -name x
[ "$(stat -c %b x/sparse)" -lt 200 ] && echo holes

echo "-- other ways"
tar_out -z disk.qcow2:/a -f a.tgz
tar -tzf a.tgz
tar_out --zstd disk.raw:/a | python3 -c "import sys; print(sys.stdin.buffer.read(4).hex())"
for format in gnutar ustar; do
	tar_out -H $format disk.raw:/ | tar -x -C x --one-top-level=$format
	diff -r --no-dereference -x pipe tree x/$format && echo $format
done
tar_out disk.raw:/deep -f - | tar -t
ls

echo "-- mistakes"
tar_out disk.raw:/nothing
tar_out disk.raw:/a -f no/such/file
tar_out -H zip disk.raw:/
tar_out -z --zstd disk.raw:/
img tar across disk.raw:/
img tar out
tar_out disk.raw:/deep > /dev/full
echo "exit $?"
