// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Space of files and block devices: zeroing, holes, allocation, and finding the holes.
 *
 * The kernel is asked for the cheapest way first; what it refuses once it is not asked again, and
 * -ENOTSUP makes the caller write zeros. Regular files: fallocate. Block devices: punching a hole
 * is a discard that guarantees zeros, BLKZEROOUT the general way; BLKDISCARD alone promises
 * nothing about what is read afterwards (BLKDISCARDZEROES is 0 on every current kernel), so it
 * serves discard only. All of them drop the page cache of the range.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file_impl.h"

#define MIN_RESERVE (128 * KiB) /* smaller writes are not worth a system call more */

/* Errors by which the kernel says "this file cannot do that", as against "it went wrong". */
static bool is_refusal(int code)
{
	return code == EOPNOTSUPP || code == ENOSYS || code == ENOTTY || code == ENODEV;
}

/* 0, -ENOTSUP without text, or an error with text. *refused remembers. */
static int try_fallocate(struct file_io *f, atomic_bool *refused, int mode, uint64_t off,
			 uint64_t len, const char *verb, struct err *err)
{
	bool extends = !(mode & FALLOC_FL_KEEP_SIZE) && off + len > io_size(&f->io);
	int r, code;

	if (atomic_load_explicit(refused, memory_order_relaxed))
		return -ENOTSUP;
	if (extends)
		pthread_rwlock_rdlock(&f->extend);
	do
		r = fallocate(f->fd, mode, (off_t)off, (off_t)len);
	while (r < 0 && errno == EINTR);
	code = errno;
	if (extends)
		pthread_rwlock_unlock(&f->extend);
	if (r == 0)
		return 0;
	if (is_refusal(code)) {
		atomic_store_explicit(refused, true, memory_order_relaxed);
		return -ENOTSUP;
	}
	/* Some file systems refuse a range, not the operation. */
	return code == EINVAL ? -ENOTSUP : file_error(f, code, verb, len, off, err);
}

static int punch(struct file_io *f, uint64_t off, uint64_t len, const char *verb, struct err *err)
{
	return try_fallocate(f, &f->no_punch, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len,
			     verb, err);
}

/*
 * Makes the file end at `end` or later without allocating; *old is where it ended. Exclusive, so
 * that the ftruncate cannot cut off what another thread appends at this moment.
 */
static int extend_to(struct file_io *f, uint64_t end, uint64_t *old, struct err *err)
{
	struct stat st;
	int code = 0;

	*old = io_size(&f->io);
	if (end <= *old)
		return 0;
	pthread_rwlock_wrlock(&f->extend);
	if (fstat(f->fd, &st) < 0)
		code = errno;
	else if ((uint64_t)st.st_size < end && ftruncate(f->fd, (off_t)end) < 0)
		code = errno;
	else
		*old = (uint64_t)st.st_size;
	pthread_rwlock_unlock(&f->extend);
	return code ? err_sys(err, code, "%s: cannot extend to %" PRIu64 " bytes", f->io.name, end)
		    : 0;
}

/* Zeros that take no space: a hole, also past the end. */
static int zero_unmap(struct file_io *f, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t old;
	int r = extend_to(f, off + len, &old, err);

	if (r < 0 || off >= old)
		return r;
	return punch(f, off, min_u64(len, old - off), "zero", err);
}

/* Zeros that keep or get their space. */
static int zero_allocated(struct file_io *f, uint64_t off, uint64_t len, struct err *err)
{
	int r = try_fallocate(f, &f->no_zero_range, FALLOC_FL_ZERO_RANGE, off, len, "zero", err);

	if (r != -ENOTSUP || atomic_load(&f->no_punch) || atomic_load(&f->no_allocate))
		return r;
	r = punch(f, off, len, "zero", err);
	if (r < 0)
		return r;
	return try_fallocate(f, &f->no_allocate, 0, off, len, "zero", err);
}

static int regular_zero(struct file_io *f, uint64_t off, uint64_t len, unsigned flags,
			struct err *err)
{
	int r = flags & IO_ZERO_UNMAP ? zero_unmap(f, off, len, err) : -ENOTSUP;

	return r == -ENOTSUP ? zero_allocated(f, off, len, err) : r;
}

/* A range of whole sectors of a device. */
static int device_zero_blocks(struct file_io *f, uint64_t off, uint64_t len, unsigned flags,
			      struct err *err)
{
	uint64_t range[2] = {off, len};
	int r = -ENOTSUP;

	if (flags & IO_ZERO_UNMAP)
		r = punch(f, off, len, "zero", err);
	if (r != -ENOTSUP || atomic_load(&f->no_zero_range))
		return r;
	if ((flags & IO_ZERO_FAST) && !f->device_fast)
		return -ENOTSUP;
	if (ioctl(f->fd, BLKZEROOUT, range) == 0)
		return 0;
	if (is_refusal(errno) || errno == EINVAL) {
		atomic_store(&f->no_zero_range, true);
		return -ENOTSUP;
	}
	return file_error(f, errno, "zero", len, off, err);
}

/* Writes zeros to [off, end), less than one sector. */
static int write_partial(struct file_io *f, uint64_t off, uint64_t end, struct err *err)
{
	while (off < end) {
		size_t n = (size_t)min_u64(end - off, ZERO_BUF_SIZE);
		int r = io_pwrite(&f->io, zero_buf, n, off, err);

		if (r < 0)
			return r;
		off += n;
	}
	return 0;
}

static int device_zero(struct file_io *f, uint64_t off, uint64_t len, unsigned flags,
		       struct err *err)
{
	uint64_t start = round_up(off, f->block), end = round_down(off + len, f->block);
	int r;

	if (start >= end)
		return -ENOTSUP;
	r = device_zero_blocks(f, start, end - start, flags, err);
	if (r < 0)
		return r;
	r = write_partial(f, off, start, err);
	return r < 0 ? r : write_partial(f, end, off + len, err);
}

int file_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct file_io *f = file_of(io);
	/* The partial blocks must not be in the middle of somebody's read-modify-write. */
	bool edges = f->direct && !f->device && !is_aligned(off | len, f->block);
	int r;

	if (f->keep_space)
		flags &= ~(unsigned)IO_ZERO_UNMAP;
	if (edges)
		pthread_mutex_lock(&f->edge);
	r = f->device ? device_zero(f, off, len, flags, err)
		      : regular_zero(f, off, len, flags, err);
	if (edges)
		pthread_mutex_unlock(&f->edge);
	file_forget_data(f);
	return r;
}

static int device_discard(struct file_io *f, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t start = round_up(off, f->block), end = round_down(off + len, f->block);
	uint64_t range[2] = {start, end - start};

	if (start >= end || atomic_load(&f->no_discard))
		return 0;
	if (ioctl(f->fd, BLKDISCARD, range) == 0)
		return 0;
	if (is_refusal(errno) || errno == EINVAL) {
		atomic_store(&f->no_discard, true);
		return -ENOTSUP;
	}
	return file_error(f, errno, "discard", end - start, start, err);
}

int file_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	struct file_io *f = file_of(io);
	uint64_t start = round_up(off, f->block), end = round_down(off + len, f->block);
	int r;

	if (f->keep_space)
		return 0;
	if (f->device)
		return device_discard(f, off, len, err);
	/* Partial blocks are not worth the lock that zeroing them would need. */
	if (start >= end)
		return 0;
	r = punch(f, start, end - start, "discard", err);
	file_forget_data(f);
	return r;
}

int file_allocate(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	struct file_io *f = file_of(io);
	uint64_t end;
	int r;

	if (!io_is_file(io) || f->device)
		return -ENOTSUP;
	if (io->caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: allocate: opened read-only", io->name);
	if (!add_ok(off, len, &end) || end > INT64_MAX)
		return err_set(err, EFBIG, "%s: allocate at offset %" PRIu64 " is out of range",
			       io->name, off);
	if (!len)
		return 0;
	r = try_fallocate(f, &f->no_allocate, 0, off, len, "allocate", err);
	if (r == 0)
		io_note_end(io, end);
	return r;
}

/*
 * On ext4 a buffered write into space that is not allocated yet costs one reservation per block, which
 * is more than the copy of the data (measured: 0.35 s against 0.23 s for 1.7 GiB). Other file systems
 * reserve in larger pieces by themselves, and some take it as a wish to fill the space with zeros.
 */
int file_reserve(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	int r;

	if (len < MIN_RESERVE || !io_is_file(io) || !file_of(io)->reserves)
		return 0;
	r = file_allocate(io, off, len, err);
	return r == -ENOTSUP ? 0 : r;
}

void file_forget_data(struct file_io *f)
{
	LOCK_SCOPE(&f->seen_lock);

	f->seen_start = f->seen_end = 0;
}

/*
 * A long run of data is asked for piece by piece, and each SEEK_HOLE walks the file system's extents
 * up to its end: remember the run. A stale answer says "data" of what became a hole, which is
 * always right, if not the best answer.
 */
static bool seen_data(struct file_io *f, uint64_t off, uint64_t *end)
{
	LOCK_SCOPE(&f->seen_lock);

	*end = f->seen_end;
	return off >= f->seen_start && off < f->seen_end;
}

static void remember_data(struct file_io *f, uint64_t start, uint64_t end)
{
	LOCK_SCOPE(&f->seen_lock);

	f->seen_start = start;
	f->seen_end = end;
}

int file_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct file_io *f = file_of(io);
	uint64_t end;
	off_t data, hole;

	(void)err;
	if (f->device || atomic_load_explicit(&f->no_seek, memory_order_relaxed))
		return 0; /* ext says: all data */
	if (seen_data(f, off, &end)) {
		ext->len = min_u64(len, end - off);
		return 0;
	}
	data = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno != ENXIO) {
		atomic_store_explicit(&f->no_seek, true, memory_order_relaxed);
		return 0;
	}
	/* ENXIO: a hole up to the end of the file, also when it was cut in the meantime. */
	if (data < 0 || (uint64_t)data > off) {
		ext->kind = EXT_ZERO;
		if (data >= 0)
			ext->len = min_u64(len, (uint64_t)data - off);
		return 0;
	}
	hole = lseek(f->fd, (off_t)off, SEEK_HOLE);
	if (hole < 0 || (uint64_t)hole <= off)
		return 0; /* punched under our eyes, or a file system that errs: data is safe */
	remember_data(f, off, (uint64_t)hole);
	ext->len = min_u64(len, (uint64_t)hole - off);
	return 0;
}

void file_ask_device(struct file_io *f, dev_t rdev)
{
	/* A partition has no queue of its own. */
	static const char *const dirs[] = {"", "/.."};

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		char path[96], text[32];
		CLEANUP_FD int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u%s/queue/write_zeroes_max_bytes",
			 major(rdev), minor(rdev), dirs[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
		if (n > 0) {
			text[n] = '\0';
			f->device_fast = strtoull(text, NULL, 10) > 0;
			return;
		}
	}
}
