/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bitmaps that a conversion takes along. */
#ifndef IMGKIT_OPS_CONVERT_BITMAPS_H
#define IMGKIT_OPS_CONVERT_BITMAPS_H

#include "ops/convert.h"

/* Zero-initialise; free with convert_bitmaps_free. */
struct convert_bitmaps {
	struct create_bitmap *v; /* owned */
	struct bitmap_source {
		struct img *img;
		unsigned index;
	} * source; /* owned: of each */
	unsigned n;
};

/* Those of the source; -ESTALE: one is inconsistent; or req->copy.warn is told that it stays. */
int convert_bitmaps_find(const struct convert_request *req, struct convert_bitmaps *b,
			 struct err *err);
/* Adds them to an image that exists. */
int convert_bitmaps_add(const struct convert_bitmaps *b, struct img *src, struct img *dst,
			struct err *err);
void convert_bitmaps_free(struct convert_bitmaps *b);

#endif
