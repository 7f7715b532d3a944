/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the virtual size, with the checks that keep people from cutting off their data. */
#ifndef IMGKIT_OPS_RESIZE_H
#define IMGKIT_OPS_RESIZE_H

#include "image/img.h"

enum resize_mode { RESIZE_TO, RESIZE_GROW_BY, RESIZE_SHRINK_BY };

struct resize_request {
	enum resize_mode mode;
	uint64_t n;   /* bytes */
	int prealloc; /* PREALLOC_…, of what is added */
	bool shrink;  /* permission to make it smaller */
};

/*
 * What the size would be, bytes. -EINVAL; *cuts: the reason is that the image would become smaller
 * without permission.
 */
int resize_plan(const struct img *img, const struct resize_request *req, uint64_t *size, bool *cuts,
		struct err *err);

/* Resizes to what resize_plan said; what is added reads as zeros. Durable on return. */
int resize_run(struct img *img, const struct resize_request *req, uint64_t size, struct err *err);

#endif
