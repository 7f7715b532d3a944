/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the doubles that sit on another io (fault, crash, trace) have in common. Private to them. */
#ifndef IMGKIT_IO_DOUBLES_PASS_H
#define IMGKIT_IO_DOUBLES_PASS_H

#include "io/io.h"

struct pass {
	struct io io; /* first */
	struct io *inner;
	bool own;
};

static inline struct pass *pass_of(struct io *io)
{
	return (struct pass *)(void *)io; /* io is the first member */
}

/* Sets up the common part over inner: its name, size, alignment and capabilities. */
int pass_init(struct pass *p, const struct io_ops *ops, struct io *inner, bool own,
	      struct err *err);

/* Closes inner if owned, and frees p. */
void pass_close(struct io *io);

/* The calls, handed down to inner. Extents that name inner name the double: no way around it. */
int pass_resize(struct io *io, uint64_t size, struct err *err);
int pass_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err);

#endif
