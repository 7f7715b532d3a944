# SPDX-License-Identifier: GPL-2.0-or-later
# What a stranger puts into names and links stays inside the target, and off the terminal.
umask 022
copy() { img cp --isolation=process "$@"; echo "exit $?"; }
disk() { mke2fs -q -t ext4 -O ^metadata_csum,^dir_index -d "$1" "$2" 16M > mke2fs.out 2>&1 || cat mke2fs.out; }
# Other bytes of the same length, in the image: names that no system call would make.
patch() { python3 - "$@" << 'END'
import sys
data = open(sys.argv[1], 'rb').read()
for pair in sys.argv[2:]:
    old, new = (s.encode().decode('unicode_escape').encode('latin1') for s in pair.split('='))
    assert old in data and len(old) == len(new), pair
    data = data.replace(old, new)
open(sys.argv[1], 'wb').write(data)
END
}

echo "-- names"
mkdir names
touch "names/$(printf 'new\nline')" "names/$(printf 'esc\033[31m')" "names/$(printf '\377\376')" 'names/ blank '
disk names names.raw
copy -r names.raw:/ out
ls -b out
copy "names.raw:/$(printf 'esc\033[31m')/x" .

echo "-- names with slashes, and of the directory itself"
mkdir slashes
echo evil > slashes/..Xevil1
echo evil > slashes/XtmpXevil
mkdir slashes/upupup
echo fine > slashes/fine
disk slashes slashes.raw
patch slashes.raw '..Xevil1=../evil1' 'XtmpXevil=/tmp/evil'
copy -r slashes.raw:/ out2
ls -A out2
ls evil1 /tmp/evil 2> /dev/null

echo "-- a link, and then a directory of that name"
mkdir -p twice/aaaa-link twice/bbbb-link outside
rmdir twice/aaaa-link
ln -s "$PWD/outside" twice/aaaa-link
echo evil > twice/bbbb-link/evil
disk twice twice.raw
patch twice.raw bbbb-link=aaaa-link
copy -r twice.raw:/ out3 2>&1 | sed 's/No such file.*/…/'
ls -A outside

echo "-- a link, and then a file of that name"
mkdir -p file-link outside2
echo precious > outside2/file
ln -s "$PWD/outside2/file" file-link/aaaa-link
echo evil > file-link/bbbb-link
disk file-link file-link.raw
patch file-link.raw bbbb-link=aaaa-link
copy -r file-link.raw:/ out4
cat outside2/file

echo "-- links that are there already are not written through"
mkdir -p out5/names
ln -s "$PWD/outside2/file" out5/fine
ln -s "$PWD/outside" out5/upupup
copy -r slashes.raw:/. out5
cat outside2/file out5/fine
ls -A outside

echo "-- a directory that holds itself"
mkdir -p loop/aaaa/bbbb
disk loop loop.raw
debugfs -w -R 'ln /aaaa /aaaa/bbbb/cccc' loop.raw 2> /dev/null
copy -r loop.raw:/aaaa out6
find out6 | sort

echo "-- set-user-ID and devices"
mkdir rights
echo run > rights/suid
chmod 6755 rights/suid
disk rights rights.raw
debugfs -w -R 'mknod null c 1 3' rights.raw 2> /dev/null
copy -r rights.raw:/ out7
stat -c '%n %A' out7/*
copy rights.raw:/null .
