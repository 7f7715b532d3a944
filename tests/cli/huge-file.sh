# SPDX-License-Identifier: GPL-2.0-or-later
# A disk of petabytes without data: nothing takes time or memory for it.
truncate -s 15T huge.raw 2>/dev/null || { echo "no files of 15 TiB here"; exit 77; }
printf x | dd of=huge.raw bs=1 seek=12345678901234 conv=notrunc status=none
# Sanitizers take address space of their own.
if [ "$VARIANT" = release ]; then ulimit -v 2000000; fi
img info huge.raw | grep virtual
img map --output=json huge.raw
img convert -O qcow2 -o cluster_size=2M huge.raw huge.qcow2
img check huge.qcow2 | head -1
img compare huge.raw huge.qcow2
img convert huge.qcow2 back.raw
img compare -f raw -F raw huge.raw back.raw
stat -c %s back.raw
sum=$(img checksum huge.raw | cut -c -64)
test ${#sum} = 64 && img checksum huge.qcow2 | grep -q "^$sum " && echo same sum
img create -q -f qcow2 -o cluster_size=2M big.qcow2 2E
img info big.qcow2 | grep virtual
img map --output=json big.qcow2
img convert -O qcow2 -o cluster_size=2M big.qcow2 copy.qcow2
img compare big.qcow2 copy.qcow2
