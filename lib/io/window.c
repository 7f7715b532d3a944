// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A byte range of another io: a partition of a disk, an image inside an image. Never grows; writes
 * beyond its end are refused by the wrappers.
 */
#include "io/window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"

struct window {
	struct io io; /* first */
	struct io *inner;
	uint64_t base; /* bytes: where the window begins in inner */
	bool own;
};

static struct window *window_of(struct io *io)
{
	return (struct window *)(void *)io; /* io is the first member */
}

static int window_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct window *w = window_of(io);

	return io_pread(w->inner, buf, len, w->base + off, err);
}

static int window_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct window *w = window_of(io);

	return io_pwrite(w->inner, buf, len, w->base + off, err);
}

static int window_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
			struct err *err)
{
	struct window *w = window_of(io);

	return io_clone(w->inner, w->base + off, src, at, len, err);
}

static int window_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct window *w = window_of(io);

	return io_zero(w->inner, w->base + off, len, flags, err);
}

static int window_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	struct window *w = window_of(io);

	return io_discard(w->inner, w->base + off, len, err);
}

static int window_flush(struct io *io, struct err *err)
{
	return io_flush(window_of(io)->inner, err);
}

/* host and io stay inner's: callers may move the bytes there, past the window. */
static int window_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext,
		      struct err *err)
{
	struct window *w = window_of(io);
	int r = io_map(w->inner, w->base + off, len, ext, err);

	ext->off = off;
	return r;
}

static void window_close(struct io *io)
{
	struct window *w = window_of(io);

	if (w->own)
		io_close(w->inner);
	free(w);
}

static const struct io_ops window_ops = {
	.name = "window",
	.pread = window_pread,
	.pwrite = window_pwrite,
	.clone = window_clone,
	.zero = window_zero,
	.discard = window_discard,
	.flush = window_flush,
	.map = window_map,
	.close = window_close,
};

struct io *window_inner(const struct io *io)
{
	return io->ops == &window_ops ? ((const struct window *)(const void *)io)->inner : NULL;
}

int window_open(struct io *inner, uint64_t off, uint64_t size, bool own, struct io **out,
		struct err *err)
{
	struct window *w;
	uint64_t end;
	int r;

	if (!add_ok(off, size, &end) || end > io_size(inner))
		return err_set(err, EINVAL,
			       "%s: a window of %" PRIu64 " bytes at offset %" PRIu64
			       " is past the end (size %" PRIu64 ")",
			       inner->name, size, off, io_size(inner));
	w = calloc(1, sizeof(*w));
	if (!w)
		return err_nomem(err, sizeof(*w), "a window");
	r = io_init(&w->io, &window_ops, inner->name, err);
	if (r < 0) {
		free(w);
		return r;
	}
	w->inner = inner;
	w->base = off;
	w->own = own;
	w->io.caps = inner->caps & ~(unsigned)IO_GROWS;
	w->io.align = is_aligned(off, inner->align) ? inner->align : 1;
	atomic_init(&w->io.size, size);
	*out = &w->io;
	return 0;
}
