// SPDX-License-Identifier: LGPL-2.1-or-later
/* Persistent bitmaps of an image: each function takes the gate alone, and asks the format. */
#include <errno.h>

#include "image/internal.h"

bool img_has_bitmaps(const struct img *img)
{
	return img->fmt->bitmaps && img->fmt->bitmaps->supported(img);
}

int img_bitmaps(struct img *img, unsigned *n, struct err *err)
{
	int r;

	*n = 0;
	if (!img->fmt->bitmaps)
		return 0;
	pthread_rwlock_wrlock(&img->gate);
	r = img->fmt->bitmaps->load(img, n, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

void img_bitmap_get(struct img *img, unsigned index, struct bitmap *bitmap)
{
	pthread_rwlock_wrlock(&img->gate); /* writers set flags under the shared one */
	img->fmt->bitmaps->get(img, index, bitmap);
	pthread_rwlock_unlock(&img->gate);
}

int img_bitmap_read(struct img *img, unsigned index, uint64_t at, void *buf, size_t len,
		    struct err *err)
{
	int r;

	pthread_rwlock_wrlock(&img->gate);
	r = img->fmt->bitmaps->read(img, index, at, buf, len, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

static int enter(struct img *img, struct err *err)
{
	if (!img->fmt->bitmaps)
		return err_set(err, ENOTSUP, "%s: the format '%s' has no bitmaps", img->io.name,
			       img->fmt->name);
	return img_enter(img, "bitmap", err);
}

static int leave(struct img *img, int r)
{
	pthread_rwlock_unlock(&img->gate);
	return r;
}

int img_bitmap_add(struct img *img, const char *name, uint64_t granularity, bool enabled,
		   struct err *err)
{
	int r = enter(img, err);

	return r < 0 ? r : leave(img, img->fmt->bitmaps->add(img, name, granularity, enabled, err));
}

int img_bitmap_remove(struct img *img, unsigned index, struct err *err)
{
	int r = enter(img, err);

	return r < 0 ? r : leave(img, img->fmt->bitmaps->remove(img, index, err));
}

int img_bitmap_enable(struct img *img, unsigned index, bool enable, struct err *err)
{
	int r = enter(img, err);

	return r < 0 ? r : leave(img, img->fmt->bitmaps->enable(img, index, enable, err));
}

int img_bitmap_clear(struct img *img, unsigned index, struct err *err)
{
	int r = enter(img, err);

	return r < 0 ? r : leave(img, img->fmt->bitmaps->clear(img, index, err));
}

int img_bitmap_set(struct img *img, unsigned index, uint64_t off, uint64_t len, struct err *err)
{
	int r = enter(img, err);

	return r < 0 ? r : leave(img, img->fmt->bitmaps->set(img, index, off, len, err));
}
