# SPDX-License-Identifier: GPL-2.0-or-later
# A file of no bytes is a disk of no bytes.
: > empty
img info empty | grep -v 'disk size'
img map --output=json empty
img measure -O qcow2 empty
img convert -O qcow2 empty empty.qcow2
img check empty.qcow2
img compare empty empty.qcow2
img convert empty.qcow2 back
stat -c %s back
img checksum empty | cut -c -64
img checksum empty.qcow2 | cut -c -64
img check empty
echo "exit $?"
img info -f qcow2 empty
echo "exit $?"
img convert -f raw - out.raw < /dev/null
stat -c %s out.raw
