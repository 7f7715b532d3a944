# SPDX-License-Identifier: GPL-2.0-or-later
# Readers of qcow2 that share no code with the peer read what we write: 7-Zip the whole disk, libqcow the
# header. Both inflate compressed clusters on their own.
command -v 7z > /dev/null || { echo "no 7z"; exit 77; }
status=0
wrong() { echo "$1: $2"; status=1; }
{ seq 400000; head -c 3M /dev/zero; head -c 1M /dev/urandom; seq 100000; head -c 100k /dev/zero; } > disk.raw
truncate -s %512 disk.raw
size=$(stat -c %s disk.raw)
for options in "" "-c" "-o cluster_size=4k" "-c -o cluster_size=4k" "-c -o compat=0.10" \
	"-o refcount_bits=1" "-c -o cluster_size=2M" "-c -o cluster_size=512" "-o preallocation=metadata" \
	"-c --compression-level=12" "-c --compression-window=narrow"; do
	# shellcheck disable=SC2086 # they are words
	img convert --force -O qcow2 $options disk.raw out.qcow2 || wrong "$options" "convert"
	7z t -tqcow out.qcow2 > log 2>&1 || wrong "$options" "7z: $(cat log)"
	7z x -tqcow -so out.qcow2 2> log | cmp - disk.raw || wrong "$options" "7z reads something else"
	# libqcow knows 64 KiB clusters and larger ones, and smaller ones down to 512 bytes.
	if command -v qcowinfo > /dev/null; then
		qcowinfo out.qcow2 > log 2>&1 || wrong "$options" "qcowinfo: $(cat log)"
		grep -q "Media size.*($size bytes)" log || wrong "$options" "qcowinfo: $(cat log)"
	fi
done
# An image that was written to in place, with a snapshot and after a resize.
img create -q -f qcow2 live.qcow2 "$size"
img convert -n -O qcow2 disk.raw live.qcow2
img snapshot -c one live.qcow2
img resize -q live.qcow2 +1M
truncate -s +1M disk.raw
printf x | dd of=disk.raw bs=1 seek=5000000 conv=notrunc status=none
img convert -n -O qcow2 disk.raw live.qcow2
7z x -tqcow -so live.qcow2 2> log | cmp - disk.raw || wrong "live" "7z reads something else: $(cat log)"
exit $status
