/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Persistent bitmaps by their names; errors have the peer's texts. */
#ifndef IMGKIT_OPS_BITMAP_H
#define IMGKIT_OPS_BITMAP_H

#include <jansson.h>

#include "image/img.h"

#define BITMAP_NAME_MAX 1023 /* bytes */

/* -ENOENT. */
int bitmap_find(struct img *img, const char *name, unsigned *index, struct err *err);

/* granularity 0: the cluster size, not below 4 KiB or above 64 KiB. -EINVAL, -EEXIST, -ENOTSUP. */
int bitmap_add(struct img *img, const char *name, uint64_t granularity, bool enabled,
	       struct err *err);
int bitmap_remove(struct img *img, const char *name, struct err *err);
int bitmap_clear(struct img *img, const char *name, struct err *err);
int bitmap_enable(struct img *img, const char *name, bool enable, struct err *err);

/*
 * Sets the bits of `name` that are set in src_name of src (which may be img). -EINVAL: other sizes.
 * -ECANCELED: some of them are set, and to do it again sets the others. job counts bytes of the disk;
 * its total is the caller's.
 */
int bitmap_merge(struct img *img, const char *name, struct img *src, const char *src_name,
		 struct job *job, struct err *err);

/* -ESTALE: it is inconsistent. */
int bitmap_check_usable(const struct bitmap *b, struct err *err);

/* Bytes of the disk whose bits are set. */
int bitmap_count(struct img *img, unsigned index, uint64_t *bytes, struct err *err);

/* Reads a bitmap from front to back, a piece at a time. */
struct bitmap_cursor {
	struct img *img;
	unsigned index;
	struct bitmap bitmap;
	unsigned char *buf; /* owned */
	uint64_t first;     /* number of the first bit in buf */
	uint64_t n_bits;    /* in buf; 0: nothing is */
};
int bitmap_cursor_open(struct bitmap_cursor *c, struct img *img, unsigned index, struct err *err);
void bitmap_cursor_close(struct bitmap_cursor *c);

/*
 * Whether the bit of the byte at off is set, and for how many bytes that is the same: 1 … len.
 * [off, off+len) lies inside what the bitmap covers.
 */
int bitmap_cursor_run(struct bitmap_cursor *c, uint64_t off, uint64_t len, bool *set, uint64_t *run,
		      struct err *err);

/*
 * Calls fn for each run of set bits, in order, as bytes of the disk (cut at its end). An error of
 * fn ends it. job as of bitmap_merge.
 */
typedef int bitmap_run_fn(void *ctx, uint64_t off, uint64_t len, struct err *err);
int bitmap_each_run(struct img *img, unsigned index, bitmap_run_fn *fn, void *ctx, struct job *job,
		    struct err *err);

/* A list of objects: name, granularity, flags, dirty (bytes; not of inconsistent ones). */
int bitmap_list_json(struct img *img, json_t **list, struct err *err);

#endif
