# SPDX-License-Identifier: GPL-2.0-or-later
# Block devices: source, target of any format, never overwritten without being told to; the size is the
# device's, and growth ends there.
truncate -s 16M file
loop=$(losetup -f --show file 2>/dev/null) || { echo "no loop device is permitted"; exit 77; }
trap 'losetup -d "$loop"' EXIT
try() { "$@" 2>&1 | sed "s|$loop|DEVICE|g"; echo "exit ${PIPESTATUS[0]}"; }
{ seq 500000; head -c 4M /dev/zero; seq 1000; } > disk.raw
truncate -s 8M disk.raw
img convert -O qcow2 disk.raw "$loop" && img compare -f raw -F qcow2 disk.raw "$loop"
img info "$loop" | sed "s|$loop|DEVICE|" | head -n 3
img check -q "$loop" && echo "in order"
img convert -f qcow2 "$loop" back.raw && cmp disk.raw back.raw && echo "and back"
img snapshot -c one "$loop" && img resize -q "$loop" +1M && img check -q "$loop" && echo "changed in place"
try img convert -O raw disk.raw "$loop"
img convert --force -O raw disk.raw "$loop" && head -c 8M "$loop" | cmp - disk.raw && echo "replaced"
img info -f raw "$loop" | grep virtual
try img create -q -f qcow2 "$loop" 1M
img create --force -q -f qcow2 "$loop" 100M && img info "$loop" | grep virtual
head -c 20M /dev/urandom > large.raw
img convert -n -f raw -O qcow2 large.raw "$loop" 2> /dev/null
echo "exit $?"
img check -q "$loop" > /dev/null 2>&1
case $? in 0|3) echo "no corruption" ;; esac
img convert --force -O qcow2 large.raw "$loop" 2> /dev/null
echo "exit $?"
