// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Fails the n-th call, before it reaches the inner io. For sweeps: fail_at = 1, 2, … until a run
 * ends with plan->calls < fail_at.
 */
#include <stdlib.h>

#include "io/doubles.h"
#include "io/doubles/pass.h"

struct fault {
	struct pass pass; /* first */
	struct fault_plan *plan;
};

/* 0, or the planned error. */
static int step(struct io *io, const char *what, bool write, struct err *err)
{
	struct fault_plan *plan = ((struct fault *)(void *)io)->plan;
	uint64_t n;

	if (plan->writes_only && !write)
		return 0;
	n = atomic_fetch_add(&plan->calls, 1) + 1;
	if (!plan->fail_at || (plan->sticky ? n < plan->fail_at : n != plan->fail_at))
		return 0;
	if (plan->raise) {
		atomic_store(plan->raise, true);
		return 0;
	}
	return err_sys(err, plan->code, "%s: %s: planned fault", io->name, what);
}

static int fault_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	int r = step(io, "read", false, err);

	return r < 0 ? r : io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int fault_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	int r = step(io, "write", true, err);

	return r < 0 ? r : io_pwrite(pass_of(io)->inner, buf, len, off, err);
}

static int fault_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		       struct err *err)
{
	int r = step(io, "clone", true, err);

	return r < 0 ? r : io_clone(pass_of(io)->inner, off, src, at, len, err);
}

static int fault_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	int r = step(io, "zero", true, err);

	return r < 0 ? r : io_zero(pass_of(io)->inner, off, len, flags, err);
}

static int fault_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	int r = step(io, "discard", true, err);

	return r < 0 ? r : io_discard(pass_of(io)->inner, off, len, err);
}

static int fault_flush(struct io *io, struct err *err)
{
	int r = step(io, "flush", true, err);

	return r < 0 ? r : io_flush(pass_of(io)->inner, err);
}

static int fault_resize(struct io *io, uint64_t size, struct err *err)
{
	int r = step(io, "resize", true, err);

	return r < 0 ? r : pass_resize(io, size, err);
}

static int fault_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	int r = step(io, "map", false, err);

	return r < 0 ? r : pass_map(io, off, len, ext, err);
}

static const struct io_ops fault_ops = {
	.name = "fault",
	.pread = fault_pread,
	.pwrite = fault_pwrite,
	.clone = fault_clone,
	.zero = fault_zero,
	.discard = fault_discard,
	.flush = fault_flush,
	.resize = fault_resize,
	.map = fault_map,
	.close = pass_close,
};

int fault_open(struct io *inner, bool own, struct fault_plan *plan, struct io **out,
	       struct err *err)
{
	struct fault *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_nomem(err, sizeof(*f), "a fault io");
	r = pass_init(&f->pass, &fault_ops, inner, own, err);
	if (r < 0) {
		free(f);
		return r;
	}
	f->plan = plan;
	*out = &f->pass.io;
	return 0;
}
