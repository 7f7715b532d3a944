# SPDX-License-Identifier: GPL-2.0-or-later
# A mirror out of an export with a dirty bitmap: what the bitmap has is copied, and it stays as it is.
set -eu

serve() { # NAME OPTIONS...: at socket NAME, read-only
	qemu-nbd --fork --pid-file="$PWD/$1.pid" -t -e 8 -r -f qcow2 -k "$PWD/$1" -x disk "${@:2}" src.qcow2
}
trap 'cat ./*.pid 2>/dev/null | xargs -r kill 2>/dev/null || :' EXIT
refused() { # TEXT OPTIONS...
	cp backup before
	! img mirror -f raw -O raw "${@:2}" backup 2>error
	grep -qF "$1" error
	cmp backup before
}

qemu-img create -q -f qcow2 src.qcow2 64M
qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 40M 3M' src.qcow2 >io.log
qemu-img convert -f qcow2 -O raw src.qcow2 backup
qemu-img bitmap --add src.qcow2 b0
qemu-io -c 'write -P 3 1020k 8k' -c 'write -z -u 41M 1M' -c 'write -P 4 65535k 1k' src.qcow2 >io.log
# What no bit is set for is not touched, so this stays until all is copied.
qemu-io -f raw -c 'write -P 9 30M 64k' backup >io.log

serve with -B b0
serve without
export="nbd+unix:///disk?socket=$PWD/with"
img mirror -f raw -O raw --bitmap b0 --output=json "$export" backup >result
# Clusters of 64 KiB: two of the first write, 16 of the zeros, one at the end.
for line in '"mode": "incremental"' '"copied": 1245184' '"bitmap-added": false' '"bitmap-cleared": false'; do
	grep -qF "$line" result
done
qemu-io -f raw -c 'write -z 30M 64k' backup >io.log
qemu-img compare -q -f qcow2 -F raw -U src.qcow2 backup
img mirror -f raw -O raw --bitmap b0 --verify "$export" backup >result
[ "$(cat result)" = '1.19 MiB of 64 MiB copied; both disks are equal' ]
qemu-io -f raw -c 'write -P 9 30M 64k' backup >io.log
img mirror -f raw -O raw --bitmap b0 --full --verify -q "$export" backup
refused "the server exports no bitmap 'b1'" --bitmap b1 "$export"
refused "the server exports no bitmap 'b0'" --bitmap b0 "nbd+unix:///disk?socket=$PWD/without"

# An export need not end with a sector.
img serve -t -k part --daemon --pid-file part.pid \
	--export "name=,file=src.qcow2,read-only=on,bitmap=b0,offset=512k,size=1000001"
qemu-img convert -f qcow2 -O raw src.qcow2 whole
dd if=whole of=expected bs=1 skip=524288 count=1000001 status=none
truncate -s 1000001 piece
img mirror -f raw -O raw --bitmap b0 "nbd+unix:///?socket=$PWD/part" piece >result
# A part of each of two clusters, and zeros up to the sector's end.
dd if=piece bs=1 skip=507904 count=131072 status=none >got
dd if=expected bs=1 skip=507904 count=131072 status=none | cmp - got
[ "$(cat result)" = '128 KiB of 977 KiB copied' ]
