# SPDX-License-Identifier: GPL-2.0-or-later
# create never overwrites a file that holds something, unless told to.
echo precious > disk
img create disk 1M
echo "exit $?"
cat disk
img create -q -f qcow2 --force disk 1M
img info disk | grep format:
: > empty
chmod 640 empty
img create -q -f qcow2 empty 2M
stat -c '%a' empty
ls -A
