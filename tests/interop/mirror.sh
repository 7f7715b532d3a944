# SPDX-License-Identifier: GPL-2.0-or-later
# A mirror, and passes after it: qemu-io writes to the source between them, and the bitmap that it keeps
# says what changed. After each pass qemu-img finds both disks equal.
set -eu

equal() { qemu-img compare -q -f qcow2 -F "$2" src.qcow2 "$1"; }
passes() { # TARGET FORMAT
	rm -f src.qcow2
	qemu-img create -q -f qcow2 src.qcow2 64M
	qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 40M 3M' -c 'write -z 50M 1M' src.qcow2 >io.log
	img mirror -O "$2" --bitmap b0 --output=json src.qcow2 "$1" >result
	grep -q '"mode": "full"' result && grep -q '"bitmap-added": true' result
	equal "$1" "$2"

	img mirror -O "$2" --bitmap b0 --output=json src.qcow2 "$1" >result
	grep -q '"mode": "incremental"' result && grep -q '"copied": 0,' result

	# Data, zeros, a discard, and two small writes in one cluster; the end of the disk.
	qemu-io -c 'write -P 3 1020k 8k' -c 'write -z -u 41M 1M' -c 'discard 0 64k' -c 'write -P 4 63M 1M' \
		-c 'write -P 5 10M 512' -c 'write -P 6 10300k 1k' src.qcow2 >io.log
	img mirror -O "$2" --bitmap b0 --verify --output=json src.qcow2 "$1" >result
	grep -q '"mode": "incremental"' result && ! grep -q '"copied": 0,' result
	equal "$1" "$2"
	img bitmap --list --output=json src.qcow2 | grep -q '"dirty": 0$'

	# What the target has where nothing changed is not touched: it is not even looked at.
	qemu-io -f "$2" -c 'write -P 9 30M 64k' "$1" >io.log
	img mirror -O "$2" -q --bitmap b0 src.qcow2 "$1"
	! equal "$1" "$2" 2>/dev/null
	! img mirror -O "$2" -q --bitmap b0 --verify src.qcow2 "$1" 2>error
	grep -q 'differs from src.qcow2 at offset 31457280' error
	img mirror -O "$2" -q --bitmap b0 --full src.qcow2 "$1"
	equal "$1" "$2"
	qemu-img check -q src.qcow2
}

qemu-img create -q -f raw raw.img 64M
head -c 64M /dev/urandom >raw.img
passes raw.img raw
qemu-img create -q -f qcow2 dst.qcow2 70M
passes dst.qcow2 qcow2
qemu-img check -q dst.qcow2
qemu-img create -q -f qcow2 -o cluster_size=2M,lazy_refcounts=on big.qcow2 64M
passes big.qcow2 qcow2
qemu-img check -q big.qcow2
