# SPDX-License-Identifier: GPL-2.0-or-later
# make-disk.sh FILE: the disk that guest.sh looks into.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/dir/deep" "$(dirname "$1")"
echo hello > "$work/tree/dir/hello"
ln -s ../hello "$work/tree/dir/deep/link"
seq 100000 > "$work/tree/dir/numbers"
seq 1000000 | tac > "$work/tree/big"
truncate -s 24M "$work/disk"
PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d "$work/tree" "$work/disk"
mv "$work/disk" "$1"
