# SPDX-License-Identifier: GPL-2.0-or-later
# ls shows what ls(1) would show of the same tree: every kind of file, orders, depths, names of any bytes.
export TZ=UTC LC_ALL=C
look() { img ls --isolation=process "$@"; echo "exit $?"; }
mkdir -p tree/etc tree/usr/lib tree/empty tree/deep/a/b/c tree/names tree/.secret
printf 'ID=test\n' > tree/usr/lib/os-release
printf 'hello\n' > tree/etc/hosts
ln tree/etc/hosts tree/etc/hosts.bak
ln -s ../usr/lib/os-release tree/etc/os-release
ln -s usr/lib tree/lib
ln -s nowhere tree/dangling
truncate -s 3G tree/usr/sparse
yes | head -c 150000 > tree/usr/full
touch tree/.hidden tree/.secret/x tree/deep/a/b/c/leaf
touch "tree/names/two words" "tree/names/$(printf 'esc\033[31m')" "tree/names/$(printf 'new\nline')" \
	"tree/names/$(printf 'latin\344')" tree/names/-dash
find tree -depth -exec touch -h -d '2024-02-29 12:34:56.789 UTC' {} +
touch -h -d '2025-06-01 00:00:01.5 UTC' tree/etc/hosts
truncate -s 40M raw
mke2fs -q -t ext4 -d tree raw
{
	for f in $(find tree/* -not -path 'tree/names/?*' | sed 's/^tree//') /.hidden /.secret /.secret/x /; do
		printf 'sif %s uid 1000\nsif %s gid 100\n' "$f" "$f"
	done
	echo 'sif /etc/hosts mode 0104755'
	echo 'sif /usr/full mode 0100640'
	echo 'sif /empty mode 041777'
	echo 'cd empty'
	printf 'mknod null c 1 3\nmknod disk b 8 17\nmknod pipe p\n'
	for f in null disk pipe; do echo "sif $f mtime @0"; done
	echo 'cd /'
	echo 'rmdir lost+found'
	echo 'sif / mtime 20240229123456'
	echo 'sif /empty mtime 20240229123456'
	echo 'ea_set /etc/hosts security.selinux system_u:object_r:net_conf_t:s0'
	echo 'ea_set /etc security.selinux system_u:object_r:etc_t:s0'
} > commands
debugfs -w -f commands raw > /dev/null 2>&1
img convert -O qcow2 raw disk.qcow2
img snapshot -c before disk.qcow2

echo "-- names, in both cages"
look disk.qcow2
img ls disk.qcow2@before:/ 2> /dev/null
echo "-- -l of all kinds"
look -l disk.qcow2:/
look -l disk.qcow2:/etc
look -l disk.qcow2:/empty
look -lh disk.qcow2:/usr
look -lh --full-time disk.qcow2:/etc/hosts
echo "-- a link: followed, and not with -l, but for a slash"
look disk.qcow2:/lib
look -l disk.qcow2:/lib | sed 's/^.* 1000/… 1000/'
look -l disk.qcow2:/lib/
look disk.qcow2:/dangling
look -d disk.qcow2:/dangling
echo "-- hidden names"
look -A disk.qcow2
look -lad disk.qcow2:/etc disk.qcow2:/usr
look -a disk.qcow2:/.secret
echo "-- the whole tree, the empty directory too; the same as ls(1)"
look -R disk.qcow2 | cat -v
img ls -AR disk.qcow2:/ 2> /dev/null | sed '/:$/s,^disk.qcow2:/,.,; /:$/s,^\./*:,.:,; /:$/s,^\.\([^:]\),./\1,' > ours
(cd tree && ls -AR .) > theirs
diff theirs ours | grep -v '^[<>] *\(disk\|null\|pipe\)$' | grep '^[<>]'
echo "-- orders"
look -S disk.qcow2:/usr
look -Sr disk.qcow2:/usr
look -t disk.qcow2:/etc
echo "-- labels"
look -Z disk.qcow2:/etc
look -lZ disk.qcow2:/etc | tail -n 4
echo "-- names: as they are, cleaned in columns"
look disk.qcow2:/names | od -An -c
COLUMNS=60 look -C disk.qcow2:/names
COLUMNS=20 look -C disk.qcow2:/
echo "-- JSON"
img ls -AR --output=json disk.qcow2 2> /dev/null > json
python3 - << 'END'
import json
for e in json.load(open('json')):
    if not e['path'].startswith('/names/'):
        print(*(e.get(k) for k in ('path', 'type', 'mode', 'size', 'uid', 'mtime', 'target', 'major')))
    else:
        print(ascii(e['path']))
END
look --output=json disk.qcow2:/deep/a/b/c/leaf disk.qcow2:/deep/a/b | python3 -c 'import json, sys
text = sys.stdin.read().splitlines()
print([e["path"] for e in json.loads("\n".join(text[:-1]))], text[-1])'
echo "-- errors"
look disk.qcow2:/nowhere disk.qcow2:/etc/hosts
look disk.qcow2:/etc/hosts/x
look missing.qcow2:/
look
look -y disk.qcow2
echo "-- what cannot be read is a line, too"
cp raw hurt
ino() { debugfs -R "stat $1" raw 2> /dev/null | sed -n 's/^Inode: \([0-9]*\).*/\1/p'; }
etc=$(ino /etc/os-release) lib=$(ino /usr/lib)
debugfs -w -R 'clri /etc/os-release' hurt 2> /dev/null
debugfs -w -R 'clri /usr/lib' hurt 2> /dev/null
debugfs -w -R 'sif /deep/a block[0] 0xffff' hurt 2> /dev/null
debugfs -w -R 'sif /deep/a block[2] 0xffff' hurt 2> /dev/null
look -l hurt:/etc 2>&1 | sed "s/inode $etc/inode N/"
look --output=json hurt:/etc 2> /dev/null | grep -o '"path.*unknown"'
look -R hurt 2>&1 | sed "s/inode [0-9]*/inode N/" | grep -aA3 -e '^img' -e '^hurt:/deep/a' -e '^hurt:/usr'
look -d hurt:/usr/lib 2>&1 | sed "s/inode $lib/inode N/"
