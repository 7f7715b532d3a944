# SPDX-License-Identifier: GPL-2.0-or-later
# chown: names are the guest's, its files are data, and rights end with the owner.
. "$TOP/tests/lib/guest.sh"
mkdir -p tree/etc tree/dir/sub
for f in prog setgid locked plain dir/sub/file; do echo x > tree/$f; done
ln -s /plain tree/link && ln -s /dir tree/dir/sub/back && ln -s nowhere tree/dir/dangling
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'bob:x:not:1:' 'bob:x' ':x:3:3:' 'bob:x:1000:70001:Bob:/home/bob:' \
	'bo:x:5:5:' 'bobby:x:6:6:' 'big:x:4294967295:1:' 'huge:x:99999999999999999999:1:' 'neg:x:-1:1:' \
	'last:x:65536:9' | head -c -1 > tree/etc/passwd
printf 'root:x:0:\nstaff:x:50:bob\nwide:x:4294967294:\n' > tree/etc/group
head -c 300000 /dev/zero | tr '\0' 'x' >> tree/etc/group
make_ext tree fs 16M
printf '%s\n' 'sif prog mode 0104755' 'sif setgid mode 0102755' 'sif locked mode 0102644' \
	'sif dir mode 0042755' 'ea_set prog security.capability cap' 'ea_set prog user.note kept' |
	debugfs -w -f - fs > /dev/null 2>&1
try chown bob fs:/plain
state /plain fs
try chown bob: fs:/plain
state /plain fs
try chown root:staff fs:/plain
state /plain fs
try chown :wide fs:/link
state /plain fs
state /link fs
try chown -h last:70000 fs:/link
state /link fs
try chown -R 1:2 fs:/dir
for f in /dir /dir/sub /dir/sub/file /dir/sub/back /dir/dangling /etc; do state $f fs; done
try chown 3 fs:/prog fs:/setgid fs:/locked
for f in /prog /setgid /locked; do state $f fs; done
ext "ea_list prog" fs | grep -E 'note|cap'
for name in bobb b '' x big huge neg nobody bob:nobody; do try chown -- "$name" fs:/plain; done
state /plain fs
try rm fs:/etc/passwd
try chown root fs:/plain
try chown 12:13 fs:/plain
state /plain fs
sound fs
