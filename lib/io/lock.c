// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * QEMU's image locks (block/file-posix.c of QEMU 2.10 and later), so that imgkit and QEMU exclude
 * each other as two QEMUs do.
 *
 * Permission n (enum below) has two bytes in the file. Byte 100+n is locked shared by everybody who
 * uses the permission, byte 200+n by everybody who cannot bear that others use it. All locks are
 * shared read locks of the open file description; a conflict is found by asking whether an exclusive
 * lock on the opposite byte would be possible. First lock, then ask: of two that come at the same
 * time at least one sees the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "io/file_impl.h"

#define BYTE_IN_USE 100
#define BYTE_DENIED 200

/* BLK_PERM_… of QEMU, by bit number. */
enum { PERM_READ, PERM_WRITE, PERM_WRITE_UNCHANGED, PERM_RESIZE, PERMS };

static const char *const perm_names[PERMS] = {
	[PERM_READ] = "consistent read",
	[PERM_WRITE] = "write",
	[PERM_WRITE_UNCHANGED] = "write unchanged",
	[PERM_RESIZE] = "resize",
};

static struct flock byte_lock(short type, int byte)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

/* File systems without locks: go on without, as QEMU does. */
static bool is_unsupported(int code)
{
	return code == ENOLCK || code == EOPNOTSUPP || code == ENOSYS || code == EINVAL;
}

static int conflict(const char *path, const char *what, const char *name, struct err *err)
{
	return err_set(err, EBUSY,
		       "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?",
		       what, name, path);
}

/* Locks base+n for every bit n of perms. 1: the file system has no locks. */
static int lock_bytes(int fd, const char *path, int base, unsigned perms, struct err *err)
{
	for (int n = 0; n < PERMS; n++) {
		struct flock fl = byte_lock(F_RDLCK, base + n);
		int r;

		if (!(perms & 1u << n))
			continue;
		do
			r = fcntl(fd, F_OFD_SETLK, &fl);
		while (r < 0 && errno == EINTR);
		if (r == 0)
			continue;
		if (is_unsupported(errno))
			return 1;
		if (errno != EAGAIN && errno != EACCES)
			return err_sys(err, errno, "Failed to lock byte %d of '%s'", base + n,
				       path);
		return err_set(err, EBUSY,
			       "Failed to lock byte %d\nIs another process using the image [%s]?",
			       base + n, path);
	}
	return 0;
}

/* The first bit n of perms whose byte base+n somebody else holds, or -1. */
static int find_holder(int fd, int base, unsigned perms)
{
	for (int n = 0; n < PERMS; n++) {
		struct flock fl = byte_lock(F_WRLCK, base + n);

		if ((perms & 1u << n) && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK)
			return n;
	}
	return -1;
}

int file_lock(int fd, const char *path, unsigned flags, struct err *err)
{
	unsigned use = 1u << PERM_READ, deny = 1u << PERM_WRITE | 1u << PERM_RESIZE;
	int r, n;

	if (flags & FILE_WRITE)
		use |= 1u << PERM_WRITE | 1u << PERM_RESIZE;
	else if (flags & FILE_SHARE_WRITE)
		deny = 0;
	if (flags & FILE_DATA)
		deny &= 1u << PERM_RESIZE;

	r = lock_bytes(fd, path, BYTE_IN_USE, use, err);
	if (r == 0)
		r = lock_bytes(fd, path, BYTE_DENIED, deny, err);
	if (r < 0)
		return r;
	if (r > 0)
		return 0;

	n = find_holder(fd, BYTE_DENIED, use);
	if (n >= 0)
		return conflict(path, "", perm_names[n], err);
	n = find_holder(fd, BYTE_IN_USE, deny);
	if (n >= 0)
		return conflict(path, "shared ", perm_names[n], err);
	return 0;
}
