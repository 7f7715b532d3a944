# SPDX-License-Identifier: GPL-2.0-or-later
# amend: versions and widths there and back, nothing lost by accident, progress for programs.
img create -q -f qcow2 disk.qcow2 4M
head -c 2M "$IMG" > part.raw
img convert -n -f raw -O qcow2 part.raw disk.qcow2
sum=$(img checksum disk.qcow2)
options() { img info --output=json disk.qcow2 | sed -n 's/^ *"\(compat\|refcount-bits\|lazy-refcounts\|virtual-size\)": //p' | paste -sd' '; }
for o in compat=0.10 compat=1.1,refcount_bits=1 lazy_refcounts=on refcount_bits=64 compat=v2,refcount_bits=16 size=6M; do
	img amend -o "$o" disk.qcow2
	options
	img check -q disk.qcow2 || echo "check: $?"
done
img amend -o size=4M disk.qcow2
img amend --shrink -o size=4M disk.qcow2
[ "$(img checksum disk.qcow2)" = "$sum" ] || echo "the disk has changed"
img amend -o refcount_bits=2 disk.qcow2
img amend -o compat=1.1,cluster_size=4096 disk.qcow2
img amend -o backing_file=x,backing_fmt=raw disk.qcow2
img amend -o help -f qcow2
img amend --progress=json -o compat=1.1,refcount_bits=8 disk.qcow2 | grep -c '"state": "done"'
options
