# SPDX-License-Identifier: GPL-2.0-or-later
# An external data file: where it is made, who may have one, and what needs it.
mkdir images elsewhere
img create -q -f qcow2 -o data_file=disk.data images/disk.qcow2 1M
img create -q -f qcow2 -o data_file=../elsewhere/far.data,data_file_raw=on images/far.qcow2 1M
find images elsewhere -type f | sort
echo "--- it is not overwritten"
img create -q -f qcow2 -o data_file=disk.data images/other.qcow2 1M
img create -q -f qcow2 -o data_file=other.qcow2 images/other.qcow2 1M
img create -q --force -f qcow2 -o data_file=far.qcow2 images/far.qcow2 1M
find images -type f | sort
echo "--- beside the image, below it, or allowed"
img convert -O raw images/disk.qcow2 out.raw && rm out.raw
img convert -O raw images/far.qcow2 out.raw
img convert -O raw --allow-external elsewhere/far.data images/far.qcow2 out.raw && rm out.raw
img checksum --allow-external elsewhere/none --allow-external "$PWD/elsewhere/far.data" images/far.qcow2
img compare --allow-external elsewhere/far.data images/far.qcow2 images/disk.qcow2
img resize -q images/far.qcow2 2M
img resize -q --allow-external elsewhere/far.data images/far.qcow2 2M
stat -c %s elsewhere/far.data
img convert --untrusted -O raw images/disk.qcow2 out.raw
img convert --untrusted --allow-external images/disk.data -O raw images/disk.qcow2 out.raw && rm out.raw
echo "--- what looks at tables needs no data file"
rm images/disk.data
img info images/disk.qcow2 | grep 'data file'
img check -q images/disk.qcow2 && img map images/disk.qcow2
img measure -O raw images/disk.qcow2
img snapshot -l images/disk.qcow2
img snapshot -c one images/disk.qcow2
img compare images/disk.qcow2 images/disk.qcow2
img dedup images/far.qcow2 --allow-external elsewhere/far.data
echo "--- nothing is left of what fails"
img convert -c -f raw -O qcow2 -o data_file=n.data elsewhere/far.data images/n.qcow2
img convert -f raw -O qcow2 -o data_file=far.data elsewhere/far.data elsewhere/n.qcow2
img convert -f raw -O qcow2 -o data_file=n.data elsewhere/far.data - | wc -c
find images elsewhere -type f | sort
echo "--- under an overlay"
img create -q -f qcow2 -b images/far.qcow2 -F qcow2 over.qcow2
img commit -q over.qcow2
img commit -q --allow-external elsewhere/far.data over.qcow2
img rebase -q -b '' over.qcow2
img rebase -q --allow-external elsewhere/far.data -b '' over.qcow2
