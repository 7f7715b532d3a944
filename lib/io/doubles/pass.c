// SPDX-License-Identifier: LGPL-2.1-or-later
/* Common part of the doubles that sit on another io; see pass.h. */
#include "io/doubles/pass.h"

#include <stdlib.h>

int pass_init(struct pass *p, const struct io_ops *ops, struct io *inner, bool own, struct err *err)
{
	int r = io_init(&p->io, ops, inner->name, err);

	if (r < 0)
		return r;
	p->inner = inner;
	p->own = own;
	p->io.align = inner->align;
	p->io.caps = inner->caps;
	atomic_init(&p->io.size, io_size(inner));
	return 0;
}

void pass_close(struct io *io)
{
	struct pass *p = pass_of(io);

	if (p->own)
		io_close(p->inner);
	free(p);
}

int pass_resize(struct io *io, uint64_t size, struct err *err)
{
	struct pass *p = pass_of(io);
	int r = io_resize(p->inner, size, err);

	atomic_store(&io->size, io_size(p->inner));
	return r;
}

int pass_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct pass *p = pass_of(io);
	int r = io_map(p->inner, off, len, ext, err);

	if (r == 0 && ext->io == p->inner)
		ext->io = io;
	return r;
}
