# SPDX-License-Identifier: GPL-2.0-or-later
# img serve --run: a command gets the URI, its exit code is ours, and nothing is left when it ends.
command -v nbdinfo >/dev/null || { echo "no nbdinfo"; exit 77; }
mkdir tmp
export TMPDIR=$PWD/tmp
img create -q -f qcow2 a.qcow2 3M

echo "--- variables"
# shellcheck disable=SC2016 # of the command's shell
img serve --run '
	nbdinfo --size "$uri"
	[ "$uri" = "$URI" ] && [ -S "$unixsocket" ] && [ -z "$port" ] && echo "all there"
	env | grep -c "^uri=\|^URI=\|^unixsocket="' a.qcow2
# shellcheck disable=SC2016
img serve -p 0 --run '[ "$uri" = "nbd://localhost:$port/" ] && nbdinfo --size "$uri"' a.qcow2
# shellcheck disable=SC2016
img serve -k "$PWD/s" --run 'nbdinfo --size "$uri"; ls' a.qcow2

echo "--- exit codes"
img serve --run 'exit 7' a.qcow2
echo "exit $?"
# shellcheck disable=SC2016
img serve --run 'kill -9 $$' a.qcow2
echo "exit $?"
img serve --run true missing
echo "exit $?"
img serve --run 'echo not run' -k missing/s a.qcow2
echo "exit $?"

echo "--- what is written is in the image, and it was closed in order"
# shellcheck disable=SC2016
img serve --run 'qemu-io -f raw -c "write -q -P 7 1M 64k" "$uri"' a.qcow2
img check -q a.qcow2 && qemu-io -f qcow2 -r -c 'read -q -P 7 1M 64k' a.qcow2

echo "--- a snapshot of the moment: what is written is forgotten"
img checksum a.qcow2 >before
# shellcheck disable=SC2016
img serve --snapshot --run 'qemu-io -f raw -c "write -q -P 9 0 3M" -c "read -q -P 9 0 3M" "$uri"' a.qcow2
img checksum a.qcow2 | cmp - before && echo "the image is as it was"
find . | sort
