/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests of io/file: system calls that refuse, fail or do less when told so, and short ways
 * to fill and check a file. To be included by one source of a program: it defines pread and others,
 * which stand before those of libc.
 */
#ifndef IMGKIT_TESTS_UNIT_FILETEST_H
#define IMGKIT_TESTS_UNIT_FILETEST_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/file.h"

/* ---- system calls that do as they are told ---- */

static struct {
	int fdatasync_error;  /* errno, once */
	int fallocate_error;  /* errno, always */
	int fallocate_except; /* this mode works all the same; -1: none */
	int seek_error;       /* errno of SEEK_DATA and SEEK_HOLE, always */
	int short_every;      /* transfers of at most this many bytes; 0: as asked */
	int interrupt;        /* each transfer fails this many times with EINTR first */
	int write_error;      /* errno, always */
	int read_error;       /* errno, always */
	int send_error;       /* errno of sync_file_range, always */
	uint32_t fs_type;     /* what fstatfs says; 0: what is so */
	int linger_us;        /* pread returns only so long after it has read */
	atomic_int lingering; /* a pread is doing so */
	atomic_int fallocates, seeks, fdatasyncs, interrupted, sends;
} fake = {.fallocate_except = -1};

static inline void be_honest(void)
{
	fake.fdatasync_error = fake.fallocate_error = fake.seek_error = 0;
	fake.write_error = fake.read_error = fake.send_error = 0;
	fake.fs_type = 0;
	fake.short_every = fake.interrupt = fake.linger_us = 0;
	fake.lingering = 0;
	fake.fallocate_except = -1;
	fake.fallocates = fake.seeks = fake.fdatasyncs = fake.interrupted = fake.sends = 0;
}

int fdatasync(int fd)
{
	int code = fake.fdatasync_error;

	fake.fdatasyncs++;
	fake.fdatasync_error = 0;
	if (code) {
		errno = code;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
	fake.sends++;
	if (fake.send_error) {
		errno = fake.send_error;
		return -1;
	}
	return (int)syscall(SYS_sync_file_range, fd, off, len, flags);
}

int fstatfs(int fd, struct statfs *fs)
{
	int r = (int)syscall(SYS_fstatfs, fd, fs);

	if (r == 0 && fake.fs_type)
		fs->f_type = fake.fs_type;
	return r;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	fake.fallocates++;
	if (fake.fallocate_error && mode != fake.fallocate_except) {
		errno = fake.fallocate_error;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

off_t lseek(int fd, off_t off, int whence)
{
	fake.seeks++;
	if (fake.seek_error && (whence == SEEK_DATA || whence == SEEK_HOLE)) {
		errno = fake.seek_error;
		return -1;
	}
	return (off_t)syscall(SYS_lseek, fd, off, whence);
}

static bool interrupted(void)
{
	if (!fake.interrupt || fake.interrupted++ % (fake.interrupt + 1) == fake.interrupt)
		return false;
	errno = EINTR;
	return true;
}

static size_t shortened(size_t len)
{
	return fake.short_every && len > (size_t)fake.short_every ? (size_t)fake.short_every : len;
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	ssize_t n;

	if (fake.read_error) {
		errno = fake.read_error;
		return -1;
	}
	n = interrupted() ? -1 : syscall(SYS_pread64, fd, buf, shortened(len), off);

	if (fake.linger_us) {
		fake.lingering = 1;
		usleep((useconds_t)fake.linger_us);
	}
	return n;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (fake.write_error) {
		errno = fake.write_error;
		return -1;
	}
	return interrupted() ? -1 : syscall(SYS_pwrite64, fd, buf, shortened(len), off);
}

/* ---- helpers ---- */

static inline struct io *make(const char *path, unsigned flags)
{
	struct err e = {0};
	struct io *io;

	be_honest();
	ok(file_open(path, FILE_CREATE | FILE_TRUNC | flags, &io, &e), &e);
	return io;
}

static inline void check_bytes(struct io *io, uint64_t off, size_t len, int value)
{
	unsigned char *buf = malloc(len);
	struct err e = {0};

	assert_non_null(buf);
	ok(io_pread(io, buf, len, off, &e), &e);
	for (size_t i = 0; i < len; i++)
		if (buf[i] != value)
			fail_msg("byte %llu is %d, not %d", (unsigned long long)off + i, buf[i],
				 value);
	free(buf);
}

static inline void fill(struct io *io, uint64_t off, size_t len, int value)
{
	unsigned char *buf = malloc(len);
	struct err e = {0};

	assert_non_null(buf);
	memset(buf, value, len);
	ok(io_pwrite(io, buf, len, off, &e), &e);
	free(buf);
}

/* "D0+4096 Z4096+100": the map of the whole file. */
static inline const char *map_text(struct io *io)
{
	static char text[256];
	struct err e = {0};
	size_t n = 0;

	text[0] = '\0';
	for (uint64_t off = 0; off < io_size(io);) {
		struct extent x;

		ok(io_map(io, off, io_size(io) - off, &x, &e), &e);
		assert_true(x.off == off && x.len >= 1 && x.host == off && x.io == io);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%llu+%llu", n ? " " : "",
				      x.kind == EXT_DATA ? 'D' : 'Z', (unsigned long long)off,
				      (unsigned long long)x.len);
		off += x.len;
	}
	return text;
}

static inline uint64_t allocated(struct io *io)
{
	struct file_stat st;
	struct err e = {0};

	ok(file_stat(io, &st, &e), &e);
	return st.allocated;
}

#endif
