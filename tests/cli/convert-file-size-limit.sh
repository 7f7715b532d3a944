# SPDX-License-Identifier: GPL-2.0-or-later
# A limit on the size of files (ulimit -f) is an error with a message, and nothing is left behind.
img create -q disk.raw 64M
(ulimit -f 1024; img convert disk.raw copy.raw)
echo "exit $?"
ls
