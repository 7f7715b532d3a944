/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing what two guests would see. Threads share the work along both maps: what is a hole on
 * both sides, or the same bytes of the same file, is not read.
 */
#ifndef IMGKIT_OPS_COMPARE_H
#define IMGKIT_OPS_COMPARE_H

#include "image/img.h"

struct compare_args {
	struct io *a, *b; /* images, as a rule */
	bool strict;      /* sizes and kinds of extents must be the same too */
	unsigned workers; /* 0: as many as CPUs */
};

enum compare_kind {
	COMPARE_SAME,
	COMPARE_SIZE,   /* strict: sizes differ */
	COMPARE_STATUS, /* strict: one has data, the other a hole, … */
	COMPARE_CONTENT,
};

enum compare_step { COMPARE_MAP, COMPARE_READ };

struct compare_result {
	enum compare_kind kind;
	uint64_t offset;          /* STATUS, CONTENT: of the first sector that differs, bytes */
	bool sizes_differ;        /* and the longer one was looked at up to its end */
	enum compare_step failed; /* after an error: what failed */
};

/*
 * Finds the first difference in guest order; without strict, the longer one must be zeros behind
 * the end of the other. The result is the same with any number of workers. -ECANCELED; what mapping
 * and reading fail with.
 */
int compare_run(const struct compare_args *args, struct job *job, struct compare_result *res,
		struct err *err);

#endif
