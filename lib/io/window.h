/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Views over other ios: a window is a byte range of one, concat joins several end to end. */
#ifndef IMGKIT_IO_WINDOW_H
#define IMGKIT_IO_WINDOW_H

#include "io/io.h"

/* [off, off+size) of inner, which must lie inside it. Owns inner on success if `own`. */
int window_open(struct io *inner, uint64_t off, uint64_t size, bool own, struct io **out,
		struct err *err);

/* What io is a window of; NULL: it is no window. Borrowed. */
struct io *window_inner(const struct io *io);

/* The parts in order. Owns them all on success if `own`; the array itself is copied. */
int concat_open(struct io *const *parts, unsigned n, bool own, struct io **out, struct err *err);

#endif
