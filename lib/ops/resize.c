// SPDX-License-Identifier: LGPL-2.1-or-later
/* Changing the virtual size; see resize.h. The texts are the peer's. */
#include "ops/resize.h"

#include <errno.h>

#include "base/bytes.h"

static int new_size(uint64_t now, const struct resize_request *req, uint64_t *size, struct err *err)
{
	bool positive = true;

	switch (req->mode) {
	case RESIZE_TO:
		*size = req->n;
		break;
	case RESIZE_GROW_BY:
		if (!add_ok(now, req->n, size) || *size > INT64_MAX)
			return err_set(err, EFBIG, "New image size is too large");
		break;
	case RESIZE_SHRINK_BY:
		positive = req->n < now;
		*size = now - req->n;
		break;
	}
	if (!positive || *size == 0)
		return err_set(err, EINVAL, "New image size must be positive");
	return 0;
}

int resize_plan(const struct img *img, const struct resize_request *req, uint64_t *size, bool *cuts,
		struct err *err)
{
	uint64_t now = io_size(&img->io);
	int r = new_size(now, req, size, err);

	*cuts = false;
	if (r < 0)
		return r;
	if (*size <= now && req->prealloc != PREALLOC_OFF)
		return err_set(err, EINVAL, "Preallocation can only be used for growing images");
	if (*size < now && !req->shrink) {
		*cuts = true;
		return err_set(err, EINVAL,
			       "Use the --shrink option to perform a shrink operation.");
	}
	return 0;
}

int resize_run(struct img *img, const struct resize_request *req, uint64_t size, struct err *err)
{
	int r = img_resize(img, size, req->prealloc, err);

	return r < 0 ? r : img_settle(img, err);
}
