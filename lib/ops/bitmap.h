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

/* Sets the bits of `name` that are set in src_name of src (which may be img). -EINVAL: other sizes. */
int bitmap_merge(struct img *img, const char *name, struct img *src, const char *src_name,
		 struct err *err);

/* -ESTALE: it is inconsistent. */
int bitmap_check_usable(const struct bitmap *b, struct err *err);

/* Bytes of the disk whose bits are set. */
int bitmap_count(struct img *img, unsigned index, uint64_t *bytes, struct err *err);

/*
 * Calls fn for each run of set bits, in order, as bytes of the disk (cut at its end). An error of
 * fn ends it.
 */
typedef int bitmap_run_fn(void *ctx, uint64_t off, uint64_t len, struct err *err);
int bitmap_each_run(struct img *img, unsigned index, bitmap_run_fn *fn, void *ctx, struct err *err);

/* A list of objects: name, granularity, flags, dirty (bytes; not of inconsistent ones). */
int bitmap_list_json(struct img *img, json_t **list, struct err *err);

#endif
