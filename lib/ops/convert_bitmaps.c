// SPDX-License-Identifier: LGPL-2.1-or-later
/* The bitmaps that a conversion takes along; see convert_bitmaps.h. Errors have the peer's texts. */
#include "ops/convert_bitmaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/bitmap.h"

static int read_bits(void *ctx, uint64_t at, void *buf, size_t len, struct err *err)
{
	const struct bitmap_source *s = ctx;

	return img_bitmap_read(s->img, s->index, at, buf, len, err);
}

static void warn_skipped(const struct convert_request *req, const char *name)
{
	char text[BITMAP_NAME_MAX + 64];

	snprintf(text, sizeof(text), "Skipping inconsistent bitmap '%s'", name);
	if (req->copy.warn)
		req->copy.warn(req->copy.warn_ctx, text);
}

static int note(const struct convert_request *req, struct convert_bitmaps *b, unsigned index,
		struct err *err)
{
	struct img *src = req->src[0];
	struct bitmap_source *s = &b->source[b->n];
	struct bitmap m;

	img_bitmap_get(src, index, &m);
	if (m.inconsistent && !req->skip_broken_bitmaps)
		return err_set(err, ESTALE, "Cannot copy inconsistent bitmap '%s'", m.name);
	if (m.inconsistent) {
		warn_skipped(req, m.name);
		return 0;
	}
	if (m.size != io_size(&src->io))
		return err_set(err, EINVAL,
			       "Failed to populate bitmap %s: Bitmaps are of different sizes "
			       "(destination size is %" PRIu64 ", source size is %" PRIu64
			       ") and can't be merged",
			       m.name, io_size(&src->io), m.size);
	*s = (struct bitmap_source){src, index};
	b->v[b->n++] = (struct create_bitmap){
		.name = m.name,
		.granularity = m.granularity,
		.enabled = m.enabled,
		.read = read_bits,
		.ctx = s,
	};
	return 0;
}

int convert_bitmaps_find(const struct convert_request *req, struct convert_bitmaps *b,
			 struct err *err)
{
	unsigned n;
	int r;

	if (req->stream || req->n_src != 1 || !img_has_bitmaps(req->src[0]))
		return err_set(err, ENOTSUP, "Source lacks bitmap support");
	r = img_bitmaps(req->src[0], &n, err);
	if (r < 0 || !n)
		return r;
	b->v = calloc(n, sizeof(*b->v));
	b->source = calloc(n, sizeof(*b->source));
	if (!b->v || !b->source)
		return err_nomem(err, n * sizeof(*b->v), "bitmaps");
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = note(req, b, i, err);
	return r;
}

/* Before any is added; the last one first, as the peer tells it. */
static int check_new(const struct convert_bitmaps *b, struct img *dst, struct err *err)
{
	for (unsigned i = b->n, index; i-- > 0;) {
		struct err none = {0};
		int r = bitmap_find(dst, b->v[i].name, &index, &none);

		if (r == 0)
			return err_set(err, EEXIST,
				       "Failed to create bitmap %s: Bitmap already exists: %s",
				       b->v[i].name, b->v[i].name);
		if (r != -ENOENT)
			return err_set(err, -r, "Failed to create bitmap %s: %s", b->v[i].name,
				       none.msg);
	}
	return 0;
}

int convert_bitmaps_add(const struct convert_bitmaps *b, struct img *src, struct img *dst,
			struct err *err)
{
	int r = check_new(b, dst, err);

	for (unsigned i = 0; r == 0 && i < b->n; i++) {
		const struct create_bitmap *m = &b->v[i];

		r = bitmap_add(dst, m->name, m->granularity, m->enabled, err);
		if (r < 0)
			return err_ctx(err, r, "Failed to create bitmap %s", m->name);
		r = bitmap_merge(dst, m->name, src, m->name, NULL, err);
		if (r < 0) {
			bitmap_remove(dst, m->name, NULL); /* it says less than it should */
			return err_ctx(err, r, "Failed to populate bitmap %s", m->name);
		}
	}
	return r;
}

void convert_bitmaps_free(struct convert_bitmaps *b)
{
	free(b->v);
	free(b->source);
}
