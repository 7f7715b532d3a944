# SPDX-License-Identifier: GPL-2.0-or-later
# -p not on a terminal is the peer's line: from 0 to 100 %, a carriage return after each, at last a new line.
head -c 4M /dev/zero | tr '\0' a > disk.raw
img convert -p disk.raw copy.raw > out
tail -c 18 out | od -An -c
img convert -p -r 4M disk.raw slow.raw | tr '\r' '\n' > lines
grep -vE '^    \([0-9]+\.[0-9][0-9]/100%\)$' lines
head -n 1 lines
test "$(wc -l < lines)" -ge 3 || echo "nothing while it runs"
grep . lines | sort -c -t'(' -k2 -g && echo sorted
# Quiet wins. Data on stdout sends it to stderr.
img convert -p -q disk.raw quiet.raw
img convert -p --output=- disk.raw 2> err | cmp - disk.raw
tail -c 18 err | od -An -c
img compare -p disk.raw copy.raw | tr '\r' '\n' | tail -n 2
