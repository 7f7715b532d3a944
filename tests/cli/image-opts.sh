# SPDX-License-Identifier: GPL-2.0-or-later
# What a description of an image says is done: windows, nesting, no backing file, flags of each node.
run() { "$@"; code=$?; [ "$code" = 0 ] || echo "exit $code"; }
pattern() { # NUMBER-OF-64-KIB-BLOCKS CHARACTER
	head -c $(($1 * 65536)) /dev/zero | tr '\0' "$2"
}
{ pattern 1 a; pattern 1 b; pattern 2 c; } > base.raw
img create -q -f qcow2 -b base.raw -F raw top.qcow2

echo "--- a part of a file"
run img convert --image-opts driver=raw,file.filename=base.raw,offset=64k,size=64k b.raw
pattern 1 b | cmp - b.raw && echo "the second block"
truncate -s 64k zero.raw
cp base.raw disk.raw
run img convert -n --target-image-opts -f raw zero.raw driver=raw,file.filename=disk.raw,offset=64k,size=64k
{ pattern 1 a; head -c 65536 /dev/zero; pattern 2 c; } | cmp - disk.raw && echo "only the second block was written"
run img resize --image-opts driver=raw,file.filename=disk.raw,offset=64k,size=64k 1M

echo "--- an image in an image"
run img create -q -f qcow2 inner.qcow2 256k
run img convert -f raw -n -O qcow2 base.raw inner.qcow2
run img convert -q -f raw -O qcow2 -c inner.qcow2 outer.qcow2
run img compare --image-opts driver=qcow2,file.driver=qcow2,file.file.filename=outer.qcow2 driver=raw,file.filename=base.raw
run img compare --image-opts driver=raw,file.driver=qcow2,file.file.filename=outer.qcow2 driver=raw,file.filename=inner.qcow2
run img map --image-opts driver=raw,file.driver=qcow2,file.file.filename=inner.qcow2
run img info --image-opts driver=raw,file.driver=qcow2,file.file.filename=top.qcow2
run img convert -n --target-image-opts -f raw base.raw driver=raw,file.driver=qcow2,file.file.filename=inner.qcow2
run img compare -F raw inner.qcow2 base.raw
run img check -q inner.qcow2

echo "--- backing files"
run img map 'json:{"driver": "qcow2", "file.filename": "top.qcow2", "backing": null}'
run img map --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.offset=64k,backing.file.filename=base.raw
run img map --untrusted --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw
run img map --untrusted --image-opts driver=qcow2,file.filename=top.qcow2
run img map --untrusted --backing-chain --image-opts driver=qcow2,file.filename=top.qcow2
run img map --backing-chain --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2
run img info --backing-chain --image-opts driver=qcow2,file.filename=top.qcow2,backing.foo=on
run img convert --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=top.qcow2 loop.raw

echo "--- detect-zeroes, discard"
used() { stat -c %b "$1"; }
pattern 4 z > full.raw
truncate -s 256k zero.raw
cp --sparse=never full.raw keep.raw
run img convert -S 0 -n --target-image-opts -f raw zero.raw driver=raw,file.filename=full.raw,detect-zeroes=unmap,discard=unmap
cmp full.raw zero.raw && [ "$(used full.raw)" = 0 ] && echo "the zeros have no space"
run img convert -n --target-image-opts -f raw zero.raw driver=raw,file.filename=keep.raw,discard=ignore
cmp keep.raw zero.raw && [ "$(used keep.raw)" = 512 ] && echo "the zeros keep their space"

echo "--- options of qcow2"
run img create -q -f qcow2 small.qcow2 1M
run img convert -n --target-image-opts -f raw base.raw driver=qcow2,file.filename=small.qcow2,cache-size=1
run img check -q small.qcow2
run img create -q -f qcow2 -o compat=v2 old.qcow2 1M
run img info --image-opts driver=qcow2,file.filename=old.qcow2,lazy-refcounts=on
run img info --image-opts driver=qcow2,file.filename=old.qcow2,cache-size=2G

echo "--- what is not done is not taken"
for option in overlap-check=all cache-clean-interval=5 node-name=x auto-read-only=on encrypt.key-secret=s \
	pass-discard-other=on file.aio=io_uring file.pr-manager=x file.detect-zeroes=on file.driver=ssh; do
	run img info --image-opts "driver=qcow2,file.filename=old.qcow2,$option"
done
run img convert -f raw --target-image-opts -n -O raw base.raw driver=raw,file.filename=disk.raw
run img info ssh://localhost/
