# SPDX-License-Identifier: GPL-2.0-or-later
# Names that come out of an image cannot steer the terminal.
img create -q -f qcow2 -u -b $'no\033[2Jbase\n' -F raw disk.qcow2 1M
img snapshot -c $'\033]0;owned\a\xff' disk.qcow2
img info disk.qcow2 | grep -E 'backing file:|^1' | cut -c1-38
img map --backing-chain disk.qcow2
img snapshot -l disk.qcow2 | cut -c1-35
img snapshot -l --output=json disk.qcow2 | grep name
img info --output=json disk.qcow2 | grep -E '"name|"backing-filename"'
# The peer does not care; neither may who stands in for it.
ln -s "$IMG" "$TMPDIR"/qemu-img
"$TMPDIR"/qemu-img snapshot -l disk.qcow2 | tail -1 | od -An -c | head -2
