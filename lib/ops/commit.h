/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit: what the layers above an image of a backing chain hold goes into that image. What is read
 * through the top never changes, whenever it stops: each byte that is written to the target is one
 * that the layers above hide, and the top is emptied only when the target has all on stable storage.
 */
#ifndef IMGKIT_OPS_COMMIT_H
#define IMGKIT_OPS_COMMIT_H

#include "image/img.h"

struct commit_args {
	struct img *top, *base; /* from commit_open */
	bool keep;              /* do not empty the top */
	bool change_snapshots;  /* empty it even if it has snapshots, which see the backing file */
	unsigned workers;       /* 0: as many as CPUs */
	uint64_t rate;          /* bytes of guest data per second; 0: no limit */
};

/*
 * Finds the target in the chain of *top, which was opened with these arguments: name as the chain has
 * it, or NULL, the direct backing file. *top is closed and opened again with the target writable, which
 * is *base and belongs to *top; after an error *top is NULL. -ENOENT: there is no such image in the
 * chain; -EINVAL: no backing file at all.
 */
int commit_open(const struct img_open_args *args, const char *name, struct img **top,
		struct img **base, struct err *err);

/*
 * Commits; durable on return. The target grows to the top's size when it is smaller. -EPERM: the top
 * is to be emptied and has snapshots. -ECANCELED; after an error the top reads as before.
 */
int commit_run(const struct commit_args *args, struct job *job, struct err *err);

#endif
