# SPDX-License-Identifier: GPL-2.0-or-later
# --untrusted opens no file but those that are named on the command line, and takes nothing for raw.
head -c 64k /dev/zero | tr '\0' s > secret.raw
img create -q -f qcow2 -b secret.raw -F raw top.qcow2
img convert -O qcow2 secret.raw alone.qcow2
for command in info map "map --backing-chain" "check" "measure -O qcow2" checksum "compare alone.qcow2" "snapshot -l"; do
	# shellcheck disable=SC2086 # they are words
	img $command --untrusted top.qcow2 > out 2> err
	echo "$command: exit $?, $(cat err)"
	grep -c ssss out
done
img convert --untrusted top.qcow2 copy.raw
echo "exit $?"
img resize --untrusted top.qcow2 128k
echo "exit $?"
echo "--- what holds its data itself"
img info --untrusted alone.qcow2 | head -n 2
img convert --untrusted alone.qcow2 copy.raw && cmp copy.raw secret.raw && echo same
img compare --untrusted -F raw alone.qcow2 secret.raw
img snapshot --untrusted -c one alone.qcow2 && img check --untrusted -q alone.qcow2 && echo "in order"
echo "--- what may be raw"
img info --untrusted secret.raw
img convert --untrusted secret.raw guessed.raw
img convert --untrusted -f raw secret.raw given.raw && cmp secret.raw given.raw && echo same
ls
