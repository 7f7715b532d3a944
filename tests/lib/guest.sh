# SPDX-License-Identifier: GPL-2.0-or-later
# For tests of commands that change guests: what others see in an ext file system. Sourced.
# shellcheck shell=bash

# Asks debugfs.
ext() { # REQUEST FILE
	debugfs -R "$1" "$2" 2> err || cat err
}

# A file system with what is in a directory, all of it root's, whoever runs the test.
make_ext() { # TREE FILE SIZE [OPTION...]
	mke2fs -q -t ext4 -d "$1" "${@:4}" "$2" "$3" > mke2fs.out 2>&1 || cat mke2fs.out
	find "$1" -printf 'sif "/%P" uid 0\nsif "/%P" gid 0\n' | debugfs -w -f - "$2" > /dev/null 2>&1
}

# e2fsck finds nothing.
sound() { # FILE
	e2fsck -fn "$1" > e2fsck.out 2>&1 && return
	cat e2fsck.out
	echo "$1: e2fsck is not content"
}

# A command line, what it says, and its exit code. Numbers of inodes depend on the host's directories.
try() {
	echo "img $*"
	img "$1" --isolation=process "${@:2}" 2>&1 | sed 's/inode [0-9][0-9]*/inode N/g'
	echo "exit ${PIPESTATUS[0]}"
}

# Mode, links, owner, size and name of what is in a directory, sorted by name.
list() { # DIR FILE
	ext "ls -l $1" "$2" | awk 'NF > 8 && $NF != "." && $NF != ".." {
		print $2, $4, $5, $6, $NF }' | LC_ALL=C sort -k 5
}

# Type and mode, links, owner and size of one file.
state() { # PATH FILE
	ext "stat $1" "$2" | sed -nE 's/.*Type: ([a-z]+).*Mode: *([0-7]+).*/\1 \2/p
		s/^User: *(-?[0-9]+) *Group: *(-?[0-9]+) .*Size: ([0-9]+).*/\1:\2 \3 bytes/p
		s/^Links: ([0-9]+).*/\1 links/p' | paste -sd' '
}
