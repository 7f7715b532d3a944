# SPDX-License-Identifier: GPL-2.0-or-later
# What must not be changed is not, and what cannot be done leaves a sound file system.
. "$TOP/tests/lib/guest.sh"
mkdir -p tree/dir && echo hello > tree/file
make_ext tree fs 8M
img convert -O qcow2 fs disk.qcow2
img snapshot -c snap disk.qcow2
sha256sum fs disk.qcow2 > sums

echo "-- a snapshot"
try rm disk.qcow2@snap:/file
try edit -e s/a/b/ disk.qcow2:/file disk.qcow2@snap:/file
echo "-- somebody has the image open"
# img itself holds it, while its editor runs.
cat > editor << 'END'
img rm --isolation=process fs:/file
img chmod --isolation=process 0 fs:/file
exit 9
END
EDITOR="sh editor" try edit fs:/file
echo "-- an image that cannot be written"
cp fs locked
chmod 400 locked
chattr +i locked 2> /dev/null
if (: >> locked) 2> /dev/null; then # root's writes, where there are no such attributes
	echo "img: Could not open 'locked': Permission denied"
else
	img rm --isolation=process locked:/file 2>&1 | sed 's/Operation not permitted/Permission denied/'
fi
chattr -i locked 2> /dev/null
echo "-- names that nobody has, owners that are none"
try chown bob fs:/file
try chown bob: fs:/dir fs:/file
for owner in '' : 1:2:3 5: -1 4294967295; do
	try chown -- "$owner" fs:/file
done
try chmod 644 fs:/gone fs:/file/x
try chmod
try chown 0
try edit -e s/a/b/ -m sda9 fs:/file
sha256sum --quiet -c sums

echo "-- a full file system: the old text stays, and no other file"
mkdir -p small/dir && echo old > small/file
make_ext small full 400k -O ^has_journal -b 1024 -N 64
EDITOR='head -c 2000000 /dev/zero >' try edit -b .bak full:/file
ext "cat /file" full
list / full
sound full
echo "-- no inode is left"
seq 100 | sed 's,^,full:/dir/,' > names
xargs img mkdir --isolation=process < names 2>&1 | sed -n 's/[0-9][0-9]*/N/g; s/^.*N: //p' | sort -u
try ln -s file full:/link
EDITOR='echo new >' try edit full:/file
try ln full:/file full:/hard
list / full
sound full
