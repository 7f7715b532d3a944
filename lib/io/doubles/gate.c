// SPDX-License-Identifier: LGPL-2.1-or-later
/* Makes calls wait, so that a test decides how many are under way at once, and in which order they end. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "io/doubles.h"
#include "io/doubles/pass.h"

struct gated {
	struct pass pass; /* first */
	struct gate *gate;
};

static void go_through(struct io *io, unsigned kind)
{
	struct gate *g = ((struct gated *)(void *)io)->gate;
	LOCK_SCOPE(&g->lock);

	g->waiting++;
	pthread_cond_broadcast(&g->change);
	while (g->shut & kind)
		pthread_cond_wait(&g->change, &g->lock);
	g->waiting--;
	g->passed++;
}

void gate_shut(struct gate *g, unsigned kinds)
{
	LOCK_SCOPE(&g->lock);

	g->shut = kinds;
	pthread_cond_broadcast(&g->change);
}

void gate_await(struct gate *g, unsigned n)
{
	LOCK_SCOPE(&g->lock);

	while (g->waiting < n)
		pthread_cond_wait(&g->change, &g->lock);
}

unsigned gate_passed(struct gate *g)
{
	LOCK_SCOPE(&g->lock);

	return g->passed;
}

static int gate_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	go_through(io, GATE_READ);
	return io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int gate_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	go_through(io, GATE_WRITE);
	return io_pwrite(pass_of(io)->inner, buf, len, off, err);
}

static int gate_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	go_through(io, GATE_WRITE);
	return io_zero(pass_of(io)->inner, off, len, flags, err);
}

static int gate_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	go_through(io, GATE_WRITE);
	return io_discard(pass_of(io)->inner, off, len, err);
}

static int gate_flush(struct io *io, struct err *err)
{
	go_through(io, GATE_FLUSH);
	return io_flush(pass_of(io)->inner, err);
}

static const struct io_ops gate_ops = {
	.name = "gate",
	.pread = gate_pread,
	.pwrite = gate_pwrite,
	.zero = gate_zero,
	.discard = gate_discard,
	.flush = gate_flush,
	.resize = pass_resize,
	.map = pass_map,
	.close = pass_close,
};

int gate_open(struct io *inner, bool own, struct gate *gate, struct io **out, struct err *err)
{
	struct gated *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return err_nomem(err, sizeof(*g), "a gate");
	r = pass_init(&g->pass, &gate_ops, inner, own, err);
	if (r < 0) {
		free(g);
		return r;
	}
	g->gate = gate;
	*out = &g->pass.io;
	return 0;
}
