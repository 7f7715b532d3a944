# SPDX-License-Identifier: GPL-2.0-or-later
# qcow2 written to a pipe is a good qcow2 image.
{ head -c 1M /dev/zero | tr '\0' a; head -c 3M /dev/zero; seq 100000; } > disk.raw
truncate -s %65536 disk.raw
for options in "" "-c" "-c -o compression_type=zstd" "-o cluster_size=4k" "-o compat=0.10" "-o lazy_refcounts=on"; do
	# shellcheck disable=SC2086 # they are words
	img convert -O qcow2 $options --output=- disk.raw | cat > out.qcow2
	img check -q out.qcow2 && img compare disk.raw out.qcow2
done
img create -q -f qcow2 -b disk.raw -F raw top.qcow2
img convert -O qcow2 -B disk.raw -F raw --output=- top.qcow2 > over.qcow2
img compare disk.raw over.qcow2
img info over.qcow2 | grep 'backing file'
echo "--- what cannot be"
img convert -O qcow2 -o preallocation=full --output=- disk.raw | cat
