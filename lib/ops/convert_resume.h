/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversions that can be continued: the two files beside the target, and what must be the same.
 *
 *	begin   lock TARGET.partial.journal → say in it what this is → open TARGET.partial
 *	copy    data, flush, checkpoint, data, flush, checkpoint, …
 *	end     flush → rename TARGET.partial to TARGET → directory flushed → remove the journal
 *
 * A journal without a partial file says nothing (the power failed before the one was made, or after
 * it was renamed). A partial file without a journal is not ours.
 */
#ifndef IMGKIT_OPS_CONVERT_RESUME_H
#define IMGKIT_OPS_CONVERT_RESUME_H

#include "ops/convert.h"

struct convert_resume {
	char *partial, *path;    /* owned: names of the partial file, of the journal */
	struct journal *journal; /* owned; open, it keeps others away */
	bool opened;             /* the partial file is ours: set by the caller */
};

/* Before the target is opened. res: zero-initialised; to be ended in any case. */
int convert_resume_begin(struct convert_resume *res, const struct convert_request *req,
			 const struct create_plan *plan, struct err *err);

/*
 * After the target was closed; result: of the conversion. Removes the journal of one that is whole,
 * and both files when there is nothing in them that could be continued.
 */
void convert_resume_end(struct convert_resume *res, const struct convert_request *req, int result);

#endif
