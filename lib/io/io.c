// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The wrappers around every struct io callback; see io.h. Nothing else in the project calls a
 * function pointer of struct io_ops.
 */
#include "io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

int io_init(struct io *io, const struct io_ops *ops, const char *name, struct err *err)
{
	io->ops = ops;
	io->align = 1;
	io->name = strdup(name);
	if (!io->name)
		return err_nomem(err, strlen(name) + 1, "a file name");
	return 0;
}

void io_note_end(struct io *io, uint64_t end)
{
	uint64_t old = atomic_load_explicit(&io->size, memory_order_relaxed);

	while (old < end && !atomic_compare_exchange_weak(&io->size, &old, end))
		;
}

/* Checks that [off, off+len) is inside the io and below INT64_MAX. */
static int check_range(struct io *io, const char *what, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t end;

	if (add_ok(off, len, &end) && end <= io_size(io))
		return 0;
	return err_set(err, EINVAL,
		       "%s: %s of %" PRIu64 " bytes at offset %" PRIu64
		       " is past the end (size %" PRIu64 ")",
		       io->name, what, len, off, io_size(io));
}

static int check_writable(struct io *io, const char *what, struct err *err)
{
	if (io->caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: %s: opened read-only", io->name, what);
	return 0;
}

int io_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	int r;

	if (!len)
		return 0;
	if (!(io->caps & IO_STREAM)) {
		r = check_range(io, "read", off, len, err);
		if (r < 0)
			return r;
	}
	return io->ops->pread(io, buf, len, off, err);
}

int io_pread_tail(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	uint64_t size = io_size(io);
	size_t have = off >= size ? 0 : (size_t)min_u64(len, size - off);
	int r = io_pread(io, buf, have, off, err);

	if (r == 0)
		memset((char *)buf + have, 0, len - have);
	return r;
}

int io_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	uint64_t end;
	int r;

	if (!len)
		return 0;
	r = check_writable(io, "write", err);
	if (r < 0)
		return r;
	if (!add_ok(off, len, &end) || end > INT64_MAX)
		return err_set(err, EFBIG, "%s: write at offset %" PRIu64 " is out of range",
			       io->name, off);
	if (end > io_size(io) && !(io->caps & IO_GROWS))
		return err_set(err, ENOSPC,
			       "%s: write of %zu bytes at offset %" PRIu64
			       " is past the end (size %" PRIu64 ")",
			       io->name, len, off, io_size(io));
	r = io->ops->pwrite(io, buf, len, off, err);
	if (r == 0 && (io->caps & IO_GROWS))
		io_note_end(io, end);
	return r;
}

static int write_zeros(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	while (len) {
		size_t n = (size_t)min_u64(len, ZERO_BUF_SIZE);
		int r = io_pwrite(io, zero_buf, n, off, err);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

int io_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	uint64_t end;
	int r;

	if (!len)
		return 0;
	r = check_writable(io, "zero", err);
	if (r < 0)
		return r;
	if (!add_ok(off, len, &end) || end > INT64_MAX)
		return err_set(err, EFBIG, "%s: zero at offset %" PRIu64 " is out of range",
			       io->name, off);
	if (end > io_size(io) && !(io->caps & IO_GROWS))
		return check_range(io, "zero", off, len, err);
	r = io->ops->zero ? io->ops->zero(io, off, len, flags, err) : -ENOTSUP;
	if (r == 0 && (io->caps & IO_GROWS))
		io_note_end(io, end);
	if (r != -ENOTSUP || (flags & IO_ZERO_FAST))
		return r;
	return write_zeros(io, off, len, err);
}

int io_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
	     struct err *err)
{
	uint64_t end, src_end;
	int r;

	if (!len)
		return 0;
	r = check_writable(io, "clone", err);
	if (r < 0)
		return r;
	if (!io->ops->clone || !(io->caps & IO_CLONES))
		return -ENOTSUP;
	/* What is wrong with a range, reading and writing it says. */
	if (!add_ok(off, len, &end) || end > INT64_MAX || !add_ok(at, len, &src_end) ||
	    src_end > io_size(src) || (end > io_size(io) && !(io->caps & IO_GROWS)))
		return -ENOTSUP;
	r = io->ops->clone(io, off, src, at, len, err);
	if (r == 0 && (io->caps & IO_GROWS))
		io_note_end(io, end);
	return r;
}

int io_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	int r;

	if (!len)
		return 0;
	r = check_writable(io, "discard", err);
	if (r < 0)
		return r;
	r = check_range(io, "discard", off, len, err);
	if (r < 0)
		return r;
	r = io->ops->discard ? io->ops->discard(io, off, len, err) : -ENOTSUP;
	return r == -ENOTSUP ? 0 : r;
}

int io_flush(struct io *io, struct err *err)
{
	return io->ops->flush && !(io->caps & IO_RDONLY) ? io->ops->flush(io, err) : 0;
}

int io_resize(struct io *io, uint64_t size, struct err *err)
{
	int r = check_writable(io, "resize", err);

	if (r < 0)
		return r;
	if (size > INT64_MAX)
		return err_set(err, EFBIG, "%s: size %" PRIu64 " is out of range", io->name, size);
	if (!io->ops->resize)
		return err_set(err, ENOTSUP, "%s: a %s cannot be resized", io->name, io->ops->name);
	return io->ops->resize(io, size, err);
}

int io_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	int r;

	if (!len)
		return err_set(err, EINVAL, "%s: map of no bytes", io->name);
	r = check_range(io, "map", off, len, err);
	if (r < 0)
		return r;
	*ext = (struct extent){.kind = EXT_DATA, .off = off, .len = len, .host = off, .io = io};
	return io->ops->map ? io->ops->map(io, off, len, ext, err) : 0;
}

void io_close(struct io *io)
{
	if (!io)
		return;
	/* The backend frees the whole object; the name is ours. */
	char *name = io->name;

	io->ops->close(io);
	free(name);
}
