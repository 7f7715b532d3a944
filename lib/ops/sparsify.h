/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Freeing the space of an image's own data that reads as zeros, in place. */
#ifndef IMGKIT_OPS_SPARSIFY_H
#define IMGKIT_OPS_SPARSIFY_H

#include "image/img.h"

struct sparsify_result {
	uint64_t scanned;                       /* bytes of the disk that were stored here */
	uint64_t freed;                         /* of those, now known as zeros without data */
	uint64_t kept;                          /* zeros that the format has no way to record */
	uint64_t storage_before, storage_after; /* bytes that the file takes, as far as known */
};

/*
 * Reads what this image stores (not its backing file), by several threads (workers 0: one per CPU).
 * What reads as zeros becomes zeros without data, or a hole. The disk's content does not change;
 * nobody else may write to the image meanwhile. res is filled also after a failure: what was freed
 * stays so. -ECANCELED. Durable on return.
 */
int sparsify_run(struct img *img, unsigned workers, struct sparsify_result *res, struct job *job,
		 struct err *err);

#endif
