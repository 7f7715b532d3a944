/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sharing equal clusters inside one image, in place. */
#ifndef IMGKIT_OPS_DEDUP_H
#define IMGKIT_OPS_DEDUP_H

#include "image/img.h"

/*
 * Checks the image, repairs leaks, and makes equal clusters of data one. -EUCLEAN: the check found
 * errors; nothing was changed. res is filled also after a failure. -ECANCELED. Durable on return.
 */
int dedup_run(struct img *img, const struct dedup_args *args, struct dedup_result *res,
	      struct job *job, struct err *err);

#endif
