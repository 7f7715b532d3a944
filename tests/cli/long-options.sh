# SPDX-License-Identifier: GPL-2.0-or-later
# Long options by which qemu-img 10 calls what we call otherwise; --progress is a flag there.
run() { "$@"; code=$?; [ "$code" = 0 ] || echo "exit $code"; }
head -c 1M /dev/zero | tr '\0' a > base.raw
run img create -q --format qcow2 --backing base.raw --backing-format raw top.qcow2
run img convert --progress --source-format qcow2 --source-cache writeback --target-format qcow2 \
	--target-format-options cluster_size=4k --target-cache writeback --sparse-size 4k --parallel 2 \
	top.qcow2 copy.qcow2 | tr '\r' '\n' | tail -n 2
img info copy.qcow2 | grep cluster_size
run img convert --quiet --source-image-opts --target-format qcow2 --backing base.raw --backing-format raw \
	driver=qcow2,file.filename=top.qcow2 layer.qcow2
img info layer.qcow2 | grep 'backing file'
run img measure --source-image-opts --target-format qcow2 --target-format-options cluster_size=4k \
	driver=qcow2,file.filename=top.qcow2 | head -n 1
run img measure --source-format qcow2 top.qcow2 | head -n 1
run img compare --progress top.qcow2 base.raw | tr '\r' '\n' | tail -n 2
run img compare --progress plain top.qcow2 base.raw | tr '\r' '\n' | tail -n 2
run img compare --progress=wrong top.qcow2 base.raw
run img compare top.qcow2 base.raw --progress | tr '\r' '\n' | tail -n 2
img convert --help | grep -c -e --target-cache -e --source-image-opts || true
