// SPDX-License-Identifier: LGPL-2.1-or-later
/* Counts calls and bytes on their way to the inner io: "how many reads does this cost?" */
#include <stdlib.h>

#include "io/doubles.h"
#include "io/doubles/pass.h"

struct trace {
	struct pass pass; /* first */
	struct trace_stats *stats;
};

static struct trace_stats *stats_of(struct io *io)
{
	return ((struct trace *)(void *)io)->stats;
}

static int trace_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->preads, 1);
	atomic_fetch_add(&stats_of(io)->read_bytes, len);
	return io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int trace_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->pwrites, 1);
	atomic_fetch_add(&stats_of(io)->write_bytes, len);
	return io_pwrite(pass_of(io)->inner, buf, len, off, err);
}

static int trace_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		       struct err *err)
{
	int r = io_clone(pass_of(io)->inner, off, src, at, len, err);

	if (r == 0)
		atomic_fetch_add(&stats_of(io)->clones, 1);
	return r;
}

static int trace_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->zeros, 1);
	return io_zero(pass_of(io)->inner, off, len, flags, err);
}

static int trace_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->discards, 1);
	return io_discard(pass_of(io)->inner, off, len, err);
}

static int trace_flush(struct io *io, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->flushes, 1);
	return io_flush(pass_of(io)->inner, err);
}

static int trace_resize(struct io *io, uint64_t size, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->resizes, 1);
	return pass_resize(io, size, err);
}

static int trace_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	atomic_fetch_add(&stats_of(io)->maps, 1);
	return pass_map(io, off, len, ext, err);
}

static const struct io_ops trace_ops = {
	.name = "trace",
	.pread = trace_pread,
	.pwrite = trace_pwrite,
	.clone = trace_clone,
	.zero = trace_zero,
	.discard = trace_discard,
	.flush = trace_flush,
	.resize = trace_resize,
	.map = trace_map,
	.close = pass_close,
};

int trace_open(struct io *inner, bool own, struct trace_stats *stats, struct io **out,
	       struct err *err)
{
	struct trace *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_nomem(err, sizeof(*t), "a trace io");
	r = pass_init(&t->pass, &trace_ops, inner, own, err);
	if (r < 0) {
		free(t);
		return r;
	}
	t->stats = stats;
	*out = &t->pass.io;
	return 0;
}
