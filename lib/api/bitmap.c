// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: persistent dirty bitmaps. */
#include "ops/bitmap.h"

#include <errno.h>

#include "api/api.h"

int imgkit_bitmap_get(struct imgkit_image *image, unsigned n, struct imgkit_bitmap *bitmap,
		      size_t bitmap_size, struct imgkit_err *err)
{
	struct imgkit_bitmap answer;
	struct bitmap b;
	struct err e = {0};
	unsigned count;
	int r = img_bitmaps(image->img, &count, &e);

	if (r == 0 && n >= count)
		r = err_set(&e, ENOENT, "there are %u bitmaps", count);
	if (r)
		return api_fail(err, r, &e);
	img_bitmap_get(image->img, n, &b);
	answer = (struct imgkit_bitmap){
		.name = b.name,
		.granularity = b.granularity,
		.size = b.size,
		.enabled = b.enabled,
		.inconsistent = b.inconsistent,
	};
	return api_result(bitmap, bitmap_size, &answer, sizeof(answer), err);
}

/* The end of all changes: what the format keeps in memory goes to the disk. */
static int stored(struct imgkit_image *image, int r, struct err *e, struct imgkit_err *err)
{
	if (r == 0)
		r = img_settle(image->img, e);
	return r ? api_fail(err, r, e) : 0;
}

int imgkit_bitmap_add(struct imgkit_image *image, const char *name, uint64_t granularity,
		      unsigned flags, struct imgkit_err *err)
{
	struct err e = {0};
	int r;

	if (!name || (flags & ~(unsigned)IMGKIT_BITMAP_DISABLED))
		return api_invalid(err, "no name, or an unknown flag");
	r = bitmap_add(image->img, name, granularity, !(flags & IMGKIT_BITMAP_DISABLED), &e);
	return stored(image, r, &e, err);
}

int imgkit_bitmap_remove(struct imgkit_image *image, const char *name, struct imgkit_err *err)
{
	struct err e = {0};

	if (!name)
		return api_invalid(err, "no name");
	return stored(image, bitmap_remove(image->img, name, &e), &e, err);
}

int imgkit_bitmap_clear(struct imgkit_image *image, const char *name, struct imgkit_err *err)
{
	struct err e = {0};

	if (!name)
		return api_invalid(err, "no name");
	return stored(image, bitmap_clear(image->img, name, &e), &e, err);
}

int imgkit_bitmap_enable(struct imgkit_image *image, const char *name, int enable,
			 struct imgkit_err *err)
{
	struct err e = {0};

	if (!name)
		return api_invalid(err, "no name");
	return stored(image, bitmap_enable(image->img, name, enable, &e), &e, err);
}

int imgkit_bitmap_merge(struct imgkit_image *image, const char *name, struct imgkit_image *source,
			const char *source_name, struct imgkit_err *err)
{
	struct err e = {0};

	if (!name || !source || !source_name)
		return api_invalid(err, "no name, or no source");
	return stored(image, bitmap_merge(image->img, name, source->img, source_name, NULL, &e), &e,
		      err);
}

/* ---- runs: the caller's function as the library wants it ---- */

struct each {
	int (*run)(void *ctx, uint64_t off, uint64_t len);
	void *ctx;
	int stopped; /* what it ended the walk with */
};

static int each_run(void *ctx, uint64_t off, uint64_t len, struct err *err)
{
	struct each *each = ctx;

	(void)err;
	each->stopped = each->run(each->ctx, off, len);
	return each->stopped ? -ECANCELED : 0;
}

int imgkit_bitmap_each(struct imgkit_image *image, const char *name,
		       int (*run)(void *ctx, uint64_t off, uint64_t len), void *ctx,
		       struct imgkit_err *err)
{
	struct each each = {.run = run, .ctx = ctx};
	struct err e = {0};
	struct bitmap b;
	unsigned index;
	int r;

	if (!name || !run)
		return api_invalid(err, "no name, or no function");
	r = bitmap_find(image->img, name, &index, &e);
	if (r == 0) {
		img_bitmap_get(image->img, index, &b);
		r = bitmap_check_usable(&b, &e);
	}
	if (r == 0)
		r = bitmap_each_run(image->img, index, each_run, &each, NULL, &e);
	if (each.stopped)
		return each.stopped;
	return r ? api_fail(err, r, &e) : 0;
}
