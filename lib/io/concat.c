// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Several ios end to end as one: split raw files, extents of a disk. Requests are cut at the seams.
 *
 * Read-only if all parts are; with parts of both kinds a change that touches a read-only one is
 * refused before anything is changed. The parts must keep their sizes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "io/window.h"

struct part {
	struct io *io;
	uint64_t start; /* bytes: where it begins in the whole */
	uint64_t size;  /* bytes, when the whole was made */
};

struct concat {
	struct io io; /* first */
	bool own;
	unsigned n;
	struct part part[]; /* by start; empty parts are left out of requests by find */
};

static struct concat *concat_of(struct io *io)
{
	return (struct concat *)(void *)io; /* io is the first member */
}

/* The part that holds the byte at off, which is inside the whole. */
static const struct part *find(const struct concat *c, uint64_t off)
{
	unsigned lo = 0, hi = c->n - 1;

	/* The last one that starts at or before off: empty ones before it share its start. */
	while (lo < hi) {
		unsigned mid = lo + (hi - lo + 1) / 2;

		if (c->part[mid].start <= off)
			lo = mid;
		else
			hi = mid - 1;
	}
	return &c->part[lo];
}

/* Bytes of [off, off+len) that lie in p, which holds the byte at off. */
static uint64_t in_part(const struct part *p, uint64_t off, uint64_t len)
{
	return min_u64(len, p->start + p->size - off);
}

static int concat_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	char *dst = buf;

	while (len) {
		const struct part *p = find(concat_of(io), off);
		size_t n = (size_t)in_part(p, off, len);
		int r = io_pread(p->io, dst, n, off - p->start, err);

		if (r < 0)
			return r;
		dst += n;
		off += n;
		len -= n;
	}
	return 0;
}

/* -EROFS when the range touches a part that cannot be changed. */
static int check_parts(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	while (len) {
		const struct part *p = find(concat_of(io), off);
		uint64_t n = in_part(p, off, len);

		if (p->io->caps & IO_RDONLY)
			return err_set(err, EROFS, "%s: opened read-only", p->io->name);
		off += n;
		len -= n;
	}
	return 0;
}

static int concat_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	const char *src = buf;
	int r = check_parts(io, off, len, err);

	while (r == 0 && len) {
		const struct part *p = find(concat_of(io), off);
		size_t n = (size_t)in_part(p, off, len);

		r = io_pwrite(p->io, src, n, off - p->start, err);
		src += n;
		off += n;
		len -= n;
	}
	return r;
}

static int concat_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	int r = check_parts(io, off, len, err);

	while (r == 0 && len) {
		const struct part *p = find(concat_of(io), off);
		uint64_t n = in_part(p, off, len);

		r = io_zero(p->io, off - p->start, n, flags, err);
		off += n;
		len -= n;
	}
	return r;
}

static int concat_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	int r = check_parts(io, off, len, err);

	while (r == 0 && len) {
		const struct part *p = find(concat_of(io), off);
		uint64_t n = in_part(p, off, len);

		r = io_discard(p->io, off - p->start, n, err);
		off += n;
		len -= n;
	}
	return r;
}

/* All parts are asked, also after one failed; the first error counts. */
static int concat_flush(struct io *io, struct err *err)
{
	struct concat *c = concat_of(io);
	int result = 0;

	for (unsigned i = 0; i < c->n; i++) {
		int r = io_flush(c->part[i].io, result ? NULL : err);

		if (result == 0)
			result = r;
	}
	return result;
}

/* host and io stay the part's: callers may move the bytes there. */
static int concat_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext,
		      struct err *err)
{
	const struct part *p = find(concat_of(io), off);
	int r = io_map(p->io, off - p->start, in_part(p, off, len), ext, err);

	ext->off = off;
	return r;
}

static void concat_close(struct io *io)
{
	struct concat *c = concat_of(io);

	for (unsigned i = 0; c->own && i < c->n; i++)
		io_close(c->part[i].io);
	free(c);
}

static const struct io_ops concat_ops = {
	.name = "concatenation",
	.pread = concat_pread,
	.pwrite = concat_pwrite,
	.zero = concat_zero,
	.discard = concat_discard,
	.flush = concat_flush,
	.map = concat_map,
	.close = concat_close,
};

/* Fills the parts; io.size, caps and align follow from them. */
static int set_parts(struct concat *c, struct io *const *parts, struct err *err)
{
	const unsigned all_of = IO_RDONLY | IO_FASTZERO | IO_SPARSE;
	uint64_t size = 0;

	c->io.caps = c->n ? all_of : 0;
	for (unsigned i = 0; i < c->n; i++) {
		c->part[i] =
			(struct part){.io = parts[i], .start = size, .size = io_size(parts[i])};
		if (!add_ok(size, c->part[i].size, &size) || size > INT64_MAX)
			return err_set(err, EFBIG, "%s: the parts are too large together",
				       parts[i]->name);
		c->io.caps &= parts[i]->caps;
		c->io.align = (uint32_t)max_u64(c->io.align, parts[i]->align);
	}
	for (unsigned i = 0; i < c->n; i++)
		if (!is_aligned(c->part[i].start, c->io.align))
			c->io.align = 1;
	atomic_init(&c->io.size, size);
	return 0;
}

int concat_open(struct io *const *parts, unsigned n, bool own, struct io **out, struct err *err)
{
	size_t bytes = sizeof(struct concat) + (size_t)n * sizeof(struct part);
	struct concat *c = calloc(1, bytes);
	int r;

	if (!c)
		return err_nomem(err, bytes, "a concatenation");
	r = io_init(&c->io, &concat_ops, n ? parts[0]->name : "nothing", err);
	if (r < 0) {
		free(c);
		return r;
	}
	c->n = n;
	c->own = own;
	r = set_parts(c, parts, err);
	if (r < 0) {
		free(c->io.name);
		free(c);
		return r;
	}
	*out = &c->io;
	return 0;
}
