# SPDX-License-Identifier: GPL-2.0-or-later
# bitmap --list, for people and for programs: none, enabled, disabled, in use, names of all kinds.
img create -q -f qcow2 disk.qcow2 3M
img bitmap --list disk.qcow2
img bitmap --list --output=json disk.qcow2
img bitmap --add disk.qcow2 first
img bitmap --add -g 512 disk.qcow2 fine
img bitmap --add --disable -g 1M disk.qcow2 'with spaces'
img bitmap --add disk.qcow2 "$(printf 'esc\033[2J')"
head -c 1100k "$IMG" > part.raw
img convert -n -f raw -O qcow2 part.raw disk.qcow2
img bitmap --merge fine disk.qcow2 'with spaces'
img bitmap --clear disk.qcow2 "$(printf 'esc\033[2J')"
img bitmap --list disk.qcow2
img bitmap --list --output=json disk.qcow2
# Left in use by a program that did not come back.
cp disk.qcow2 inuse.qcow2
python3 - <<'END'
with open('inuse.qcow2', 'r+b') as f:
    head = f.read(4096)
    at = head.index(bytes.fromhex('23852875')) + 24
    f.seek(int.from_bytes(head[at:at + 8], 'big') + 15)
    f.write(b'\1')
END
img bitmap --list inuse.qcow2
img bitmap --list --output=json inuse.qcow2
echo "what changes nothing:"
img bitmap --list --output=yaml disk.qcow2
img bitmap --list disk.qcow2 first
img bitmap --list --add disk.qcow2 more
img bitmap --list gone.qcow2
img bitmap --list -f raw part.raw
img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
img bitmap --list old.qcow2
echo "copies:"
img create -q -f qcow2 copy.qcow2 3M
img convert -n --bitmaps -O qcow2 disk.qcow2 copy.qcow2
img bitmap --list copy.qcow2
img convert -n --bitmaps -O qcow2 disk.qcow2 copy.qcow2
echo "again: $?"
