# SPDX-License-Identifier: GPL-2.0-or-later
# map --output=bar|svg|html: pictures that are whole, of one size for all disks, and safe for any name.
head -c 1M /dev/zero | tr '\0' a > base.raw
img create -q -f qcow2 -b base.raw -F raw '<a>&"b.qcow2' 4M
{ head -c 256K /dev/zero; head -c 300K /dev/zero | tr '\0' b; } > part.raw
img create -q -f qcow2 other.qcow2 4M
img convert -n -S 0 -O qcow2 part.raw other.qcow2
img map --output=bar other.qcow2
img map --output=bar --backing-chain '<a>&"b.qcow2' | tail -n 3
img map --output=bar -s 256K -l 64K other.qcow2

echo "svg and html:"
for kind in svg html; do
	img map --output=$kind --backing-chain '<a>&"b.qcow2' > picture.$kind
	grep -o '^<text.*a cell is.*' picture.$kind
	grep -cE 'href|url\(|<script|@import|<a>' picture.$kind
done
python3 - <<'P'
import xml.etree.ElementTree as et
root = et.parse('picture.svg').getroot()
print(root.tag, root[0].text)
print(sorted({r.get('fill-opacity') for r in root.iter('{http://www.w3.org/2000/svg}rect')} - {None}))
print([t.text for t in root.iter('{http://www.w3.org/2000/svg}text')][2:])
P
head -n 1 picture.html; tail -n 1 picture.html; grep -c '^<tr>' picture.html

echo "a huge disk:"
img create -q -f qcow2 -o cluster_size=2M huge.qcow2 1P
img map --output=svg huge.qcow2 | grep -c '<rect'
img map --output=bar huge.qcow2 | wc -l
img create -q -f raw empty.raw 0
img map --output=bar -f raw empty.raw
img map --output=svg -f raw empty.raw | tail -n 1

echo "refused:"
img map --output=png other.qcow2; echo $?
ln -s "$(command -v img)" qemu-img
./qemu-img map --output=svg other.qcow2; echo $?
