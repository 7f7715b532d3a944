# SPDX-License-Identifier: GPL-2.0-or-later
# --resume goes on where a run was stopped, here by a limit on the size of files, and the target is byte for byte
# that of one run; whatever is not the same any more is refused.
head -c 12M /dev/urandom > disk.raw
touch -d '2020-01-01 UTC' disk.raw
# Which system call hits the limit depends on the file system, how much is compressed before on the data.
clean() { sed -E '/error while writing/d; s/[0-9.]+ MiB/N MiB/; s/(modified [0-9]+).*/\1 …/'; }
try() { img convert -m 1 --resume "$@" 2>&1 | clean; echo "exit ${PIPESTATUS[0]}"; }
stopped() { (ulimit -f 6144; try "$@"); }
for opts in '-O qcow2' '-O qcow2 -c' '-O qcow2 -o cluster_size=4k -S 0'; do
	echo "$opts"
	img convert $opts disk.raw once
	stopped $opts disk.raw copy
	ls copy*
	try $opts -p disk.raw copy | tr '\r' '\n' | grep -v '/100%'
	cmp once copy
	rm once copy
	ls
done
echo 'What differs'
stopped -O qcow2 disk.raw copy
try -O qcow2 -c disk.raw copy
try -O qcow2 -o cluster_size=4k disk.raw copy
try -O raw disk.raw copy
touch -d '2020-01-02 UTC' disk.raw
try -O qcow2 disk.raw copy
touch -d '2020-01-01 UTC' disk.raw
printf x | dd of=disk.raw bs=1 seek=1000000 conv=notrunc status=none
touch -d '2020-01-01 UTC' disk.raw
try -O qcow2 disk.raw copy
ls copy*
rm copy.partial
echo 'A journal alone says nothing, a partial file alone is not ours'
try -q -O qcow2 disk.raw copy
rm copy
stopped -q -O qcow2 disk.raw copy
rm copy.partial.journal
try -O qcow2 disk.raw copy
: > copy.partial.journal
try -O qcow2 disk.raw copy
rm copy.partial*
echo 'Targets that exist'
echo precious > copy
try -O qcow2 disk.raw copy
stopped -q --force -O qcow2 disk.raw copy
cat copy
try --force -O qcow2 disk.raw copy
img compare disk.raw copy
ls
chmod 600 copy
stopped -q --force -O qcow2 disk.raw copy
stat -c '%a %n' copy.partial*
chmod 644 copy.partial
try -q --force -O qcow2 disk.raw copy
stat -c %a copy
rm copy
ln -s elsewhere link
stopped -O qcow2 disk.raw link
try -q -O qcow2 disk.raw link
rm link elsewhere
echo 'What somebody else put there, and what cannot begin'
echo precious > copy.partial.journal
try -O qcow2 disk.raw copy
cat copy.partial.journal
rm copy.partial.journal
: > precious
ln precious copy.partial.journal
try -O qcow2 disk.raw copy
rm copy.partial.journal precious
try -O qcow2 -o extent_size_hint=1T disk.raw copy
ls
echo 'What cannot be resumed'
try -n -O qcow2 disk.raw copy
try -W -O qcow2 disk.raw new
try --snapshots -O qcow2 disk.raw new
try --salvage -O qcow2 disk.raw new
try -O raw disk.raw - | cat
try -f raw -O raw - new < <(cat disk.raw)
try -O qcow2 -o preallocation=metadata disk.raw new
try -O qcow2 -o data_file=data disk.raw new
mkfifo pipe
try -O qcow2 disk.raw pipe
ls
