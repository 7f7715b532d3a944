# SPDX-License-Identifier: GPL-2.0-or-later
# A create that fails leaves what was there, and nothing else.
echo precious > disk
img create --force -f qcow2 -o cluster_size=3000 disk 1M
img create --force -f qcow2 disk 64P
img create -f qcow2 -o nonsense=1 new 1M
img create -f qcow2 no/new 1M
img create new 1M extra
img create new
img create
cat disk
ls -A
