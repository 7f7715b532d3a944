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

#endif
