// SPDX-License-Identifier: LGPL-2.1-or-later
/* Sharing equal clusters inside one image; see dedup.h. */
#include "ops/dedup.h"

#include <errno.h>
#include <string.h>

#include "ops/sound.h"

int dedup_run(struct img *img, const struct dedup_args *args, struct dedup_result *res,
	      struct job *job, struct err *err)
{
	uint64_t before = io_size(img->file);
	int r, settled;

	memset(res, 0, sizeof(*res));
	if (!img->fmt->dedup)
		return img_dedup(img, args, res, job, err); /* which says so */
	r = sound_or_refuse(img, job, err);
	if (r == 0)
		r = img_dedup(img, args, res, job, err);
	settled = img_settle(img, r < 0 ? NULL : err);
	res->size_before = before;
	res->size_after = io_size(img->file);
	return r < 0 ? r : settled;
}
