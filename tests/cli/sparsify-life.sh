# SPDX-License-Identifier: GPL-2.0-or-later
# sparsify --zero-scan: stored zeros are freed and nothing else; disk, snapshot and backing stay.
{ head -c 2M /dev/zero; head -c 1M /dev/zero | tr '\0' a; head -c 1M /dev/zero; } > full.raw
cp full.raw disk.raw
img sparsify --zero-scan -f raw --output=json full.raw | grep -v storage
cmp full.raw disk.raw
[ "$(du -k full.raw | cut -f1)" -lt 1100 ] || du -k full.raw
for o in compat=1.1 compat=0.10 preallocation=metadata; do
	echo "$o:"
	img convert -S 0 -O qcow2 -o $o disk.raw $o.qcow2
	img snapshot -c s $o.qcow2
	img sparsify --zero-scan $o.qcow2
	img sparsify --zero-scan $o.qcow2
	img check -q $o.qcow2 && img compare -q $o.qcow2 disk.raw
	img convert -l s -O raw $o.qcow2 --force s.raw && cmp s.raw disk.raw
done
img map compat=1.1.qcow2 | cut -c 1-32

echo "subclusters:"
for o in extended_l2=on extended_l2=on,data_file=half.data data_file=half.data,data_file_raw=on \
	extended_l2=on,data_file=half.data,data_file_raw=on; do
	rm -f half.*a* half.q*
	{ head -c 32k /dev/zero | tr '\0' a; head -c 32k /dev/zero; head -c 64k /dev/zero | tr '\0' b; } > half.raw
	img create -q -f qcow2 -o cluster_size=64k,$o half.qcow2 128k
	img convert -n -S 0 -O qcow2 half.raw half.qcow2
	f=half.data; [ -e $f ] || f=half.qcow2
	before=$(du -k $f | cut -f1)
	img sparsify --zero-scan --output=json half.qcow2 | grep freed
	[ $((before - $(du -k $f | cut -f1))) -ge 24 ] && echo "$o: smaller"
	img sparsify --zero-scan --output=json half.qcow2 | grep freed
	img check -q half.qcow2 && img compare -q half.qcow2 half.raw
	img map half.qcow2 | cut -c 1-32
done

echo "over a backing file:"
head -c 4M /dev/zero | tr '\0' b > base.raw
for v in 1.1 0.10; do
	img create -q -f qcow2 -o compat=$v -b base.raw -F raw over$v.qcow2
	img convert -n -S 0 -O qcow2 disk.raw over$v.qcow2
	img sparsify --zero-scan over$v.qcow2
	img compare -q over$v.qcow2 disk.raw
done

echo "refused:"
img sparsify disk.raw; echo $?
img sparsify --zero-scan; echo $?
img sparsify --zero-scan -m 0 disk.raw; echo $?
img sparsify --zero-scan missing.raw; echo $?
