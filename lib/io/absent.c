// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The file that was not opened: it has a name, for who says where things are, and the largest size
 * there is, so that what fails is the transfer and not a comparison with its end.
 */
#include "io/absent.h"

#include <errno.h>
#include <stdlib.h>

struct absent {
	struct io io; /* first */
	const char *why;
};

static int refuse(struct io *io, struct err *err)
{
	const struct absent *a = (const struct absent *)(const void *)io;

	return err_set(err, ENOENT, "%s: %s", io->name, a->why);
}

static int absent_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)buf, (void)len, (void)off;
	return refuse(io, err);
}

static int absent_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)buf, (void)len, (void)off;
	return refuse(io, err);
}

static int absent_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	(void)off, (void)len, (void)flags;
	return refuse(io, err);
}

static int absent_resize(struct io *io, uint64_t size, struct err *err)
{
	(void)size;
	return refuse(io, err);
}

/* Nothing was written, so nothing is missing on the disk. */
static int absent_flush(struct io *io, struct err *err)
{
	(void)io, (void)err;
	return 0;
}

static int absent_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext,
		      struct err *err)
{
	(void)off, (void)len, (void)ext;
	return refuse(io, err);
}

static void absent_close(struct io *io)
{
	free(io);
}

static const struct io_ops absent_ops = {
	.name = "absent",
	.pread = absent_pread,
	.pwrite = absent_pwrite,
	.zero = absent_zero,
	.flush = absent_flush,
	.resize = absent_resize,
	.map = absent_map,
	.close = absent_close,
};

bool absent_is(const struct io *io)
{
	return io->ops == &absent_ops;
}

int absent_open(const char *name, const char *why, struct io **out, struct err *err)
{
	struct absent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_nomem(err, sizeof(*a), "a file that is not there");
	r = io_init(&a->io, &absent_ops, name, err);
	if (r < 0) {
		free(a);
		return r;
	}
	a->io.size = INT64_MAX;
	a->why = why;
	*out = &a->io;
	return 0;
}
