# SPDX-License-Identifier: GPL-2.0-or-later
# -p on a terminal: bytes, rate and time left, on one line that is rewritten.
command -v script > /dev/null || { echo "no script(1)"; exit 77; }
head -c 4M /dev/zero | tr '\0' a > disk.raw
script -qec "img convert -p -r 2M disk.raw copy.raw" /dev/null | tr '\r' '\n' > lines
cmp disk.raw copy.raw
grep -cE '/s .*left' lines | sed 's/^[1-9][0-9]*$/some/'
grep -E '^convert' lines | grep -vE '^convert  *[0-9.]+%  .* MiB' | head -n 3
tail -n 2 lines | grep -oE '^convert +100% +4 MiB in'
# Not with --progress=none, and not without -p.
script -qec "img convert --progress=none disk.raw none.raw" /dev/null
script -qec "img convert disk.raw without.raw" /dev/null
