/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The internal snapshots that a conversion takes along. The disk is made as it was in the first one,
 * a snapshot of it is taken, and so on; the disk as it is now comes last. Of each only what it has
 * not in common with the one before is copied, so what is shared in the source is in the target, too.
 */
#ifndef IMGKIT_OPS_CONVERT_SNAPSHOTS_H
#define IMGKIT_OPS_CONVERT_SNAPSHOTS_H

#include "ops/convert.h"

/* Zero-initialise; free with convert_snapshots_free. */
struct convert_snapshots {
	struct img *src;             /* borrowed */
	const struct snapshot *list; /* borrowed from src */
	unsigned n;
	struct img *view[2]; /* owned: of a snapshot, and of the next one */
	bool first_done;     /* the target holds the first one's disk already */
};

/* Those of the source. -ENOTSUP, -EINVAL: the request does not go with them. */
int convert_snapshots_find(const struct convert_request *req, struct convert_snapshots *s,
			   struct err *err);
/* Whether an image that exists can take them. */
int convert_snapshots_check(const struct convert_snapshots *s, struct img *dst, struct err *err);
/* Bytes of all disks and states: what there is to do. */
uint64_t convert_snapshots_total(const struct convert_snapshots *s);
/* Says in which snapshot an error was met. Returns r. */
int convert_snapshots_context(const struct convert_snapshots *s, unsigned index, int r,
			      struct err *err);
/* The disk as it was in the first one, if it may be copied to a new image by its builder: or NULL. */
int convert_snapshots_first(struct convert_snapshots *s, uint64_t size, struct io **first,
			    struct err *err);
/*
 * Copies them, and the disk as it is now, to dst, as `how` says. dst has no snapshots; what its disk
 * held goes, but for the first one's when that is done.
 */
int convert_snapshots_copy(struct convert_snapshots *s, const struct copy_args *how,
			   struct img *dst, struct job *job, struct err *err);
void convert_snapshots_free(struct convert_snapshots *s);

#endif
