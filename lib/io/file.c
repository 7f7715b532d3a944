// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Regular files and block devices: open, transfers, flush, resize. See file.h; holes and zeros are
 * in space.c, O_DIRECT in direct.c, locks in lock.c.
 *
 * Invariants
 *   io.size <= size of the file, as long as nobody else changes the file: writers raise io.size
 *     after the data is there. So a write that ends at or below io.size cannot extend the file.
 *   A file is emptied (FILE_TRUNC) only after its lock was taken.
 *   After one fdatasync failed, or the writing back before it, every later flush fails too: the
 *     kernel has dropped the dirty state, and a second fdatasync would report success for data that
 *     is gone.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file_impl.h"

int fd_pread(int fd, void *buf, size_t len, uint64_t off)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -FD_EOF;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int fd_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENOSPC;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int file_error(struct file_io *f, int code, const char *verb, uint64_t len, uint64_t off,
	       struct err *err)
{
	if (code == FD_EOF)
		return err_set(err, EIO,
			       "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64
			       ": the file ends before (it was truncated while in use)",
			       f->io.name, verb, len, off);
	return err_sys(err, code, "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64, f->io.name,
		       verb, len, off);
}

/* Not so little that writes cannot be joined, not so much that the disk has to wait for them. */
#define BEHIND (8 * MiB)

void file_write_behind(struct io *io)
{
	if (io_is_file(io))
		file_of(io)->behind = !file_of(io)->unsafe && !file_of(io)->direct;
}

/* The first error is the one that every flush fails with. */
static void note_flush_error(struct file_io *f, int code)
{
	int none = 0;

	atomic_compare_exchange_strong(&f->flush_error, &none, code);
}

/* Whoever writes the last byte of a portion has it sent on its way. */
static void send_behind(struct file_io *f, uint64_t len)
{
	uint64_t was = atomic_fetch_add(&f->sent, len);

	if (was / BEHIND == (was + len) / BEHIND ||
	    sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE) == 0)
		return;
	/* These are lost data, which no fdatasync has to tell once more; others, a kernel without it. */
	if (errno == EIO || errno == ENOSPC || errno == EDQUOT)
		note_flush_error(f, errno);
}

static int file_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct file_io *f = file_of(io);
	int r;

	if (f->direct)
		return direct_pread(io, buf, len, off, err);
	r = fd_pread(f->fd, buf, len, off);
	return r < 0 ? file_error(f, -r, "read", len, off, err) : 0;
}

static int file_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct file_io *f = file_of(io);
	bool extends = off + len > io_size(io);
	int r;

	if (f->direct)
		return direct_pwrite(io, buf, len, off, err);
	if (extends)
		pthread_rwlock_rdlock(&f->extend);
	r = fd_pwrite(f->fd, buf, len, off);
	if (extends)
		pthread_rwlock_unlock(&f->extend);
	if (r == 0 && f->behind)
		send_behind(f, len);
	return r < 0 ? file_error(f, -r, "write", len, off, err) : 0;
}

/*
 * Whatever the reason of a refusal: another file system, bounds that are not those of blocks, no
 * space. Who writes the bytes instead will be told if it is more than that.
 */
static int file_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		      struct err *err)
{
	struct file_io *f = file_of(io);
	const struct file_clone_range range = {
		.src_fd = file_fd(src),
		.src_offset = at,
		.src_length = len,
		.dest_offset = off,
	};
	bool extends = off + len > io_size(io);
	int r;

	(void)err;
	if (range.src_fd < 0)
		return -ENOTSUP;
	if (extends)
		pthread_rwlock_rdlock(&f->extend);
	r = ioctl(f->fd, FICLONERANGE, &range);
	if (extends)
		pthread_rwlock_unlock(&f->extend);
	file_forget_data(f); /* the source may have a hole there */
	return r < 0 ? -ENOTSUP : 0;
}

static int file_flush(struct io *io, struct err *err)
{
	struct file_io *f = file_of(io);
	int code = atomic_load(&f->flush_error), r;

	if (f->unsafe)
		return 0;
	if (code)
		return err_sys(err, code, "%s: cannot flush: an earlier flush failed", io->name);
	do
		r = fdatasync(f->fd);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	code = errno;
	note_flush_error(f, code);
	return err_sys(err, code, "%s: cannot flush", io->name);
}

static int file_resize(struct io *io, uint64_t size, struct err *err)
{
	struct file_io *f = file_of(io);
	int r;

	if (f->device) {
		if (size == io_size(io))
			return 0;
		return err_set(err, ENOTSUP,
			       "%s: a block device cannot be resized (it has %" PRIu64 " bytes)",
			       io->name, io_size(io));
	}
	do
		r = ftruncate(f->fd, (off_t)size);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_sys(err, errno, "%s: cannot resize to %" PRIu64 " bytes", io->name,
			       size);
	atomic_store(&io->size, size);
	file_forget_data(f);
	return 0;
}

static void file_close(struct io *io)
{
	struct file_io *f = file_of(io);

	close(f->fd);
	pthread_rwlock_destroy(&f->extend);
	pthread_mutex_destroy(&f->edge);
	pthread_mutex_destroy(&f->seen_lock);
	free(f);
}

static const struct io_ops file_ops = {
	.name = "file",
	.pread = file_pread,
	.pwrite = file_pwrite,
	.clone = file_clone,
	.zero = file_zero,
	.discard = file_discard,
	.flush = file_flush,
	.resize = file_resize,
	.map = file_map,
	.close = file_close,
};

bool io_is_file(const struct io *io)
{
	return io->ops == &file_ops;
}

int file_fd(const struct io *io)
{
	return io_is_file(io) ? ((const struct file_io *)(const void *)io)->fd : -1;
}

int file_stat(struct io *io, struct file_stat *st, struct err *err)
{
	struct file_io *f = file_of(io);
	struct stat s;

	if (!io_is_file(io))
		return err_set(err, ENOTSUP, "%s: not a file", io->name);
	if (fstat(f->fd, &s) < 0)
		return err_sys(err, errno, "%s: cannot stat", io->name);
	*st = (struct file_stat){
		.allocated = (uint64_t)s.st_blocks * 512,
		.dev = s.st_dev,
		.ino = s.st_ino,
		.block_device = f->device,
		.mem_align = f->mem_align,
	};
	return 0;
}

static const char *kind_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	case S_IFLNK:
		return "a symbolic link";
	default:
		return "something else";
	}
}

static int check_kind(const char *path, mode_t mode, unsigned flags, struct err *err)
{
	if (S_ISREG(mode) || (S_ISBLK(mode) && !(flags & FILE_NO_DEVICE)))
		return 0;
	return err_set(err, EINVAL, "'file' driver requires '%s' to be a regular file%s (it is %s)",
		       path, flags & FILE_NO_DEVICE ? "" : " or a block device", kind_name(mode));
}

static int open_error(const char *path, int code, unsigned flags, struct err *err)
{
	const char *verb = flags & FILE_CREATE ? "create" : "open";

	if (code == EINVAL && (flags & FILE_DIRECT))
		return err_set(err, EINVAL,
			       "Could not %s '%s': filesystem does not support O_DIRECT", verb,
			       path);
	return err_sys(err, code, "Could not %s '%s'", verb, path);
}

/* Opens without blocking and without touching devices that react to being opened. */
static int open_fd(const char *path, unsigned flags, struct err *err)
{
	int oflags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK, fd, r;
	struct stat st;

	oflags |= flags & (FILE_WRITE | FILE_CREATE) ? O_RDWR : O_RDONLY;
	oflags |= flags & FILE_DIRECT ? O_DIRECT : 0;
	oflags |= flags & FILE_OURS ? O_NOFOLLOW : 0;
	if (flags & FILE_CREATE)
		oflags |= O_CREAT | (flags & FILE_TRUNC ? 0 : O_EXCL);

	r = fstatat(AT_FDCWD, path, &st, flags & FILE_OURS ? AT_SYMLINK_NOFOLLOW : 0);
	if (r == 0 && !(oflags & O_EXCL) && !S_ISLNK(st.st_mode)) {
		r = check_kind(path, st.st_mode, flags, err);
		if (r < 0)
			return r;
	}
	do
		fd = open(path, oflags, flags & FILE_PRIVATE ? 0600 : 0644);
	while (fd < 0 && errno == EINTR);
	return fd >= 0 ? fd : open_error(path, errno, flags, err);
}

static bool is_type(const uint32_t *types, size_t n, uint32_t type)
{
	for (size_t i = 0; i < n; i++)
		if (types[i] == type)
			return true;
	return false;
}

/* What the file system of a regular file can do, and which. */
static unsigned fs_caps(int fd, uint32_t *type)
{
	static const uint32_t no_holes[] = {
		0x4d44,     /* vfat */
		0x2011bab0, /* exfat */
		0x01021997, /* 9p */
	};
	/* Others would refuse each try. */
	static const uint32_t clone[] = {
		0x58465342, /* xfs */
		0x9123683e, /* btrfs */
		0xca451a4e, /* bcachefs */
		0x7461636f, /* ocfs2 */
		0x6969,     /* nfs */
	};
	struct statfs fs;
	unsigned caps = IO_SPARSE | IO_FASTZERO;

	if (fstatfs(fd, &fs) < 0)
		return caps;
	*type = (uint32_t)fs.f_type;
	if (is_type(no_holes, ARRAY_LEN(no_holes), *type))
		caps = 0;
	if (is_type(clone, ARRAY_LEN(clone), *type))
		caps |= IO_CLONES;
	return caps;
}

/* Sets size, caps and block from the descriptor. */
static int set_up(struct file_io *f, const struct stat *st, unsigned flags, struct err *err)
{
	uint64_t size = (uint64_t)st->st_size;
	int sector = 0, read_only = 0;
	uint32_t type = 0;

	f->device = S_ISBLK(st->st_mode);
	f->block = 1;
	f->mem_align = 1;
	if (f->device) {
		if (ioctl(f->fd, BLKGETSIZE64, &size) < 0)
			return err_sys(err, errno, "%s: cannot get the size of the device",
				       f->io.name);
		if (ioctl(f->fd, BLKSSZGET, &sector) == 0 && sector > 0 &&
		    is_pow2((uint64_t)sector))
			f->block = (uint32_t)sector;
		if ((flags & FILE_WRITE) && ioctl(f->fd, BLKROGET, &read_only) == 0 && read_only)
			return err_set(err, EACCES,
				       "Could not open '%s': The device is not writable",
				       f->io.name);
		file_ask_device(f, st->st_rdev);
		f->io.caps |= f->device_fast ? IO_FASTZERO : 0;
	} else {
		f->io.caps |= IO_GROWS | fs_caps(f->fd, &type);
		f->reserves = type == EXT4_SUPER_MAGIC;
	}
	if (!(flags & FILE_WRITE))
		f->io.caps |= IO_RDONLY;
	atomic_init(&f->io.size, size);
	f->direct = (flags & FILE_DIRECT) != 0;
	if (f->direct)
		direct_setup(f);
	return 0;
}

static void init_locks(struct file_io *f)
{
	pthread_rwlockattr_t attr;

	/* Who moves the end waits for the writers of the moment, not for all that ever come. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&f->extend, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&f->edge, NULL);
	pthread_mutex_init(&f->seen_lock, NULL);
}

/* Makes the io of fd, which it takes on success only. */
static int wrap(int fd, const struct stat *st, const char *name, unsigned flags, struct io **out,
		struct err *err)
{
	struct file_io *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_nomem(err, sizeof(*f), "a file");
	r = io_init(&f->io, &file_ops, name, err);
	if (r < 0) {
		free(f);
		return r;
	}
	f->fd = fd;
	f->unsafe = (flags & FILE_UNSAFE) != 0;
	f->keep_space = (flags & FILE_KEEP_SPACE) != 0;
	r = set_up(f, st, flags, err);
	if (r < 0) {
		free(f->io.name);
		free(f);
		return r;
	}
	init_locks(f);
	*out = &f->io;
	return 0;
}

/* See file_open. As fs.protected_regular and fs.protected_hardlinks of the kernel, which may be off. */
static int check_ours(const char *path, const struct stat *st, struct err *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = NULL;
	struct stat ds;

	if (st->st_nlink > 1)
		return err_set(err, EPERM,
			       "Could not open '%s': it has other names (hard links), too", path);
	if (asprintf(&dir, "%.*s.", slash ? (int)(slash + 1 - path) : 0, path) < 0)
		return err_nomem(err, strlen(path), "a file name");
	if (stat(dir, &ds) < 0)
		return err_sys(err, errno, "Could not open '%s'", dir);
	if (!(ds.st_mode & S_ISVTX) || !(ds.st_mode & (S_IWGRP | S_IWOTH)) ||
	    st->st_uid == geteuid() || st->st_uid == ds.st_uid)
		return 0;
	return err_set(err, EPERM,
		       "Could not open '%s': it belongs to another user, in a directory where "
		       "others may put files",
		       path);
}

/* The part of file_open after the open: fd is closed by the caller when it fails. */
static int take_fd(int fd, const char *path, unsigned flags, struct io **out, struct err *err)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return open_error(path, errno, flags, err);
	r = check_kind(path, st.st_mode, flags, err);
	if (r == 0 && (flags & FILE_OURS))
		r = check_ours(path, &st, err);
	if (r < 0)
		return r;
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		return open_error(path, errno, flags, err);
	r = flags & FILE_SHARE ? 0 : file_lock(fd, path, flags, err);
	if (r < 0)
		return r;
	if ((flags & FILE_TRUNC) && S_ISREG(st.st_mode)) {
		if (ftruncate(fd, 0) < 0)
			return open_error(path, errno, flags, err);
		st.st_size = 0;
	}
	return wrap(fd, &st, path, flags, out, err);
}

int file_open(const char *path, unsigned flags, struct io **out, struct err *err)
{
	int fd, r;

	if (flags & FILE_CREATE)
		flags |= FILE_WRITE;
	fd = open_fd(path, flags, err);
	if (fd < 0)
		return fd;
	r = take_fd(fd, path, flags, out, err);
	if (r < 0) {
		/* O_EXCL: the file that would be left behind is ours. */
		if ((flags & FILE_CREATE) && !(flags & FILE_TRUNC))
			unlink(path);
		close(fd);
	}
	return r;
}

int file_from_fd(int fd, const char *name, unsigned flags, struct io **out, struct err *err)
{
	int oflags = fcntl(fd, F_GETFL), r;
	struct stat st;

	if (oflags < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s: bad descriptor", name);
	r = check_kind(name, st.st_mode, flags, err);
	if (r < 0)
		return r;
	flags &= ~(unsigned)FILE_DIRECT;
	flags |= oflags & O_DIRECT ? FILE_DIRECT : 0;
	return wrap(fd, &st, name, flags, out, err);
}
