/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of mirror share. */
#ifndef IMGKIT_OPS_MIRROR_IMPL_H
#define IMGKIT_OPS_MIRROR_IMPL_H

#include "io/nbd.h"
#include "ops/mirror.h"

/* A bitmap that an NBD server exports, read from front to back. */
struct remote_bitmap {
	struct io *io;        /* the export, borrowed */
	char *context;        /* owned */
	struct nbd_extent *v; /* owned: n extents, one behind the other */
	size_t n, at;
};

/* -ENOENT: the server does not have it, or was not asked for it. Closed in any case. */
int remote_bitmap_open(struct remote_bitmap *b, struct io *io, const char *name, struct err *err);
void remote_bitmap_close(struct remote_bitmap *b);

/* As bitmap_cursor_run. */
int remote_bitmap_run(struct remote_bitmap *b, uint64_t off, uint64_t len, bool *dirty,
		      uint64_t *run, struct err *err);

/* Bytes that are dirty. */
int remote_bitmap_count(struct remote_bitmap *b, uint64_t *bytes, struct err *err);

#endif
