/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What of a disk is stored where, through the backing chain, as `img map` tells it. */
#ifndef IMGKIT_OPS_MAP_H
#define IMGKIT_OPS_MAP_H

#include <stdbool.h>

#include "image/img.h"

/* A run of guest bytes of one state. */
struct map_entry {
	uint64_t start, length; /* bytes */
	unsigned depth;         /* layer that answered; 0 is the top */
	bool present;           /* a layer holds it; else it is zero because none does */
	bool zero;              /* known to read as zeros */
	bool data;              /* storage may have to be read for it */
	bool compressed;
	bool unknown; /* a backing file that was not opened has it */
	bool has_offset;
	uint64_t offset;     /* in the file */
	const struct io *io; /* the file; NULL: none. Borrowed */
};

/* An error ends the walk and is its result. */
typedef int (*map_emit)(void *ctx, const struct map_entry *e);

/*
 * Calls emit for the longest runs of [start, end), in order. An empty range is one entry of length 0
 * that is nothing at all. end is cut to the image's size. Memory does not grow with the image.
 */
int map_walk(struct img *img, uint64_t start, uint64_t end, map_emit emit, void *ctx,
	     struct err *err);

enum map_holes { MAP_HOLES_UNKNOWN, MAP_HOLES_NO, MAP_HOLES_YES };

/*
 * For asking entry by entry. Zero-initialise; a cursor is of one image, and used by one thread at
 * a time. What it remembers of files is true as long as nobody writes.
 */
struct map_cursor {
	/* Per layer of the chain, map_layers(img) of them, zeros at first: whether its file is to be
	 * asked about holes. Borrowed; cursors of one image may share it. */
	_Atomic unsigned char *holes;
	/* What the file said last. */
	struct io *io;
	uint64_t from, to; /* bytes of it */
	bool zero;
};

size_t map_layers(const struct img *img);

/* The entry that begins at off: 1 to len bytes, not always the longest run. The range is inside. */
int map_next(struct map_cursor *c, struct img *img, uint64_t off, uint64_t len, struct map_entry *e,
	     struct err *err);

#endif
