/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata cache: pieces ("slices") of on-disk tables, kept in memory up to a bound, with
 * write-back in classes.
 *
 * A dirty slice is written only by mcache_write, for one class at a time; the owner puts barriers
 * between the classes. Nothing dirty is ever evicted, so the owner must write back before too much
 * is dirty (mcache_dirty_count); until then the cache grows past its bound rather than lose order.
 * Not thread-safe: use under the image's meta lock.
 */
#ifndef IMGKIT_IMAGE_MCACHE_H
#define IMGKIT_IMAGE_MCACHE_H

#include "io/io.h"

#define MCACHE_CLASSES 2

struct mslice {
	uint64_t host;                /* byte offset in the file, a multiple of the slice size */
	struct mslice *next;          /* hash chain */
	struct mslice *older, *newer; /* recency list; also while dirty */
	int dirty;                    /* class + 1; 0: clean */
	unsigned char *data;
};

struct mcache {
	struct io *file;
	size_t slice; /* bytes, a power of two */
	size_t max;   /* slices to keep */
	size_t n, n_dirty[MCACHE_CLASSES];
	size_t n_buckets; /* power of two */
	struct mslice **bucket;
	struct mslice *oldest, *newest;
};

/* max_bytes bounds the clean slices. Free with mcache_free. */
int mcache_init(struct mcache *c, struct io *file, size_t slice, size_t max_bytes, struct err *err);
void mcache_free(struct mcache *c);

/*
 * The slice that holds byte `host` of the file, read if it is not here. The pointer is good until
 * the next mcache_get or mcache_drop, or as long as the slice is dirty. what: "L2 table", for the
 * error of a table that lies beyond the end of the file.
 */
int mcache_get(struct mcache *c, uint64_t host, const char *what, struct mslice **out,
	       struct err *err);

void mcache_mark(struct mcache *c, struct mslice *s, int class);

/* Forgets what is cached of [host, host+len), dirty or not: the space has another use now. */
void mcache_drop(struct mcache *c, uint64_t host, uint64_t len);

/* Writes the dirty slices of a class in file order, neighbours in one request. No flush. */
int mcache_write(struct mcache *c, int class, struct err *err);

#endif
