# SPDX-License-Identifier: GPL-2.0-or-later
# create follows symbolic links, and keeps them.
mkdir images
ln -s images/disk first
ln -s real images/disk
img create -q -f qcow2 first 1M
img create -q -f qcow2 first 1M
img create -q -f qcow2 --force first 2M
img info images/real | grep 'virtual size'
readlink first images/disk
