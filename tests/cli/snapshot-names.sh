# SPDX-License-Identifier: GPL-2.0-or-later
# A name that is also the id of another snapshot: nothing is done until it is clear which is meant.
img create -q -f qcow2 disk.qcow2 1M
img snapshot -c 2 disk.qcow2
img snapshot -c other disk.qcow2
img snapshot -c twice disk.qcow2
img snapshot -c twice disk.qcow2
list() { img snapshot -l --output=json disk.qcow2 | grep -oE '"(id|name)": "[^"]*"' | paste -sd' ' -; }
for text in 2 twice snapshot.name=2,snapshot.id=2 snapshot.bad=1 absent; do
	img snapshot -d "$text" disk.qcow2 || echo "exit $?"
	img snapshot -a "$text" disk.qcow2 || echo "exit $?"
	img convert -l "$text" -O raw disk.qcow2 out.raw || echo "exit $?"
done
list
img snapshot -a snapshot.name=2 disk.qcow2
img snapshot -d snapshot.id=2 disk.qcow2
list
# Now it means one only. The first of two equal names goes by its id.
img snapshot -d 2 disk.qcow2
img snapshot -d 4 disk.qcow2
img snapshot -d twice disk.qcow2
list
img check -q disk.qcow2
