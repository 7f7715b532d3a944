# SPDX-License-Identifier: GPL-2.0-or-later
# bench: what it says, what it writes, what it refuses.
img create -q -f qcow2 disk.qcow2 1M
img bench -c 100 -d 4 -s 512 -S 1k -o 1k disk.qcow2 | sed 's/[0-9.]* seconds/N seconds/'
img bench -q -w -c 256 --pattern=65 disk.qcow2 | sed 's/[0-9.]* seconds/N seconds/'
img bench -w -c 64 -d 8 --flush-interval=16 --output=json disk.qcow2 | sed 's/\(microseconds\|[a-z-]*-per-second\|most-in-flight\|flushes\)": [0-9]*/\1": N/'
img convert -O raw disk.qcow2 disk.raw
head -c 262144 disk.raw | tr -d '\0' | wc -c
tail -c +262145 disk.raw | tr -d A | wc -c
img check -q disk.qcow2
img bench -c 1 -s 2M disk.qcow2 >/dev/null
img bench -c 1 -o 1M disk.qcow2 >/dev/null
img bench -i native disk.qcow2
img bench -d 0 disk.qcow2
img bench -s 0 disk.qcow2
img bench --object secret,id=s,data=x -c 1 disk.qcow2 >/dev/null
img bench -d 5000 disk.qcow2 || echo refused
