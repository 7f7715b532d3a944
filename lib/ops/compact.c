// SPDX-License-Identifier: LGPL-2.1-or-later
/* Compaction of an image in place; see compact.h. */
#include "ops/compact.h"

#include <errno.h>
#include <string.h>

#include "ops/sound.h"

int compact_run(struct img *img, struct compact_result *res, struct job *job, struct err *err)
{
	int r, settled;

	memset(res, 0, sizeof(*res));
	if (!img->fmt->compact)
		return img_compact(img, res, job, err); /* which says so */
	res->size_before = io_size(img->file);
	r = sound_or_refuse(img, job, err);
	if (r == 0)
		r = img_compact(img, res, job, err);
	settled = img_settle(img, r < 0 ? NULL : err);
	res->size_after = io_size(img->file);
	return r < 0 ? r : settled;
}
