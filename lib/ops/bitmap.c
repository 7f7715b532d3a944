// SPDX-License-Identifier: LGPL-2.1-or-later
/* Persistent bitmaps by their names; see bitmap.h. */
#include "ops/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"

int bitmap_find(struct img *img, const char *name, unsigned *index, struct err *err)
{
	unsigned n;
	int r = img_bitmaps(img, &n, err);

	for (unsigned i = 0; r == 0 && i < n; i++) {
		struct bitmap b;

		img_bitmap_get(img, i, &b);
		if (strcmp(b.name, name) == 0) {
			*index = i;
			return 0;
		}
	}
	return r < 0 ? r : err_set(err, ENOENT, "Dirty bitmap '%s' not found", name);
}

/* ---- changes ---- */

static uint64_t default_granularity(const struct img *img)
{
	return min_u64(max_u64(img->unit, 4 * KiB), 64 * KiB);
}

int bitmap_add(struct img *img, const char *name, uint64_t granularity, bool enabled,
	       struct err *err)
{
	unsigned index;
	int r;

	if (!*name)
		return err_set(err, EINVAL, "Bitmap name cannot be empty");
	if (!granularity)
		granularity = default_granularity(img);
	if (!is_pow2(granularity) || granularity < 512 || granularity > 2 * GiB)
		return err_set(err, EINVAL, "Granularity must be power of 2 and at least 512%s",
			       granularity > 2 * GiB ? ", and at most 2 GiB" : "");
	if (!img->fmt->bitmaps)
		return err_set(err, ENOTSUP,
			       "Can't store persistent bitmaps to %s: Operation not supported",
			       img->io.name);
	if (strlen(name) > BITMAP_NAME_MAX) {
		r = err_set(err, EINVAL, "Name length exceeds maximum (%d characters)",
			    BITMAP_NAME_MAX);
		return err_ctx(err, r, "Can't make bitmap '%.64s…' persistent in '%s'", name,
			       img->io.name);
	}
	r = bitmap_find(img, name, &index, err);
	if (r == 0)
		return err_set(err, EEXIST, "Bitmap already exists: %s", name);
	if (r != -ENOENT)
		return r;
	r = img_bitmap_add(img, name, granularity, enabled, err);
	return err_ctx(err, r, "Can't make bitmap '%s' persistent in '%s'", name, img->io.name);
}

int bitmap_remove(struct img *img, const char *name, struct err *err)
{
	unsigned index;
	int r = bitmap_find(img, name, &index, err);

	return r < 0 ? r : img_bitmap_remove(img, index, err);
}

int bitmap_clear(struct img *img, const char *name, struct err *err)
{
	unsigned index;
	int r = bitmap_find(img, name, &index, err);

	return r < 0 ? r : img_bitmap_clear(img, index, err);
}

int bitmap_enable(struct img *img, const char *name, bool enable, struct err *err)
{
	unsigned index;
	int r = bitmap_find(img, name, &index, err);

	return r < 0 ? r : img_bitmap_enable(img, index, enable, err);
}

/* ---- merge ---- */

struct merge {
	struct img *img;
	unsigned index;
};

static int merge_run(void *ctx, uint64_t off, uint64_t len, struct err *err)
{
	const struct merge *m = ctx;

	return img_bitmap_set(m->img, m->index, off, len, err);
}

int bitmap_check_usable(const struct bitmap *b, struct err *err)
{
	return b->inconsistent ? err_set(err, ESTALE,
					 "Bitmap '%s' is inconsistent and cannot be used", b->name)
			       : 0;
}

int bitmap_merge(struct img *img, const char *name, struct img *src, const char *src_name,
		 struct job *job, struct err *err)
{
	struct merge m = {.img = img};
	struct bitmap to, from;
	unsigned index;
	int r = bitmap_find(img, name, &m.index, err);

	if (r == 0)
		r = bitmap_find(src, src_name, &index, err);
	if (r < 0)
		return r;
	img_bitmap_get(img, m.index, &to);
	img_bitmap_get(src, index, &from);
	r = bitmap_check_usable(&to, err);
	if (r == 0)
		r = bitmap_check_usable(&from, err);
	if (r < 0 || (img == src && m.index == index))
		return r;
	if (to.size != from.size)
		return err_set(err, EINVAL,
			       "Bitmaps are of different sizes (destination size is %" PRIu64
			       ", source size is %" PRIu64 ") and can't be merged",
			       to.size, from.size);
	return bitmap_each_run(src, index, merge_run, &m, job, err);
}

/* ---- list ---- */

static int describe(struct img *img, unsigned index, json_t *o, struct err *err)
{
	json_t *flags = json_array();
	struct bitmap b;
	uint64_t bytes = 0;
	int r = 0, k = 0;

	img_bitmap_get(img, index, &b);
	if (b.in_use)
		k |= json_array_append_new(flags, json_string("in-use"));
	if (b.enabled)
		k |= json_array_append_new(flags, json_string("auto"));
	k |= json_set_text(o, "name", b.name);
	k |= json_set_u64(o, "granularity", b.granularity);
	k |= json_object_set_new(o, "flags", flags);
	if (!b.inconsistent) {
		r = bitmap_count(img, index, &bytes, err);
		k |= json_set_u64(o, "dirty", bytes);
	}
	return r == 0 && k ? err_nomem(err, 256, "the list of bitmaps") : r;
}

int bitmap_list_json(struct img *img, json_t **list, struct err *err)
{
	unsigned n;
	int r = img_bitmaps(img, &n, err);

	*list = json_array();
	for (unsigned i = 0; r == 0 && i < n; i++) {
		json_t *o = json_object();

		r = describe(img, i, o, err);
		if (json_array_append_new(*list, o) < 0 && r == 0)
			r = err_nomem(err, 256, "the list of bitmaps");
	}
	if (r < 0)
		json_decref(*list);
	return r;
}
