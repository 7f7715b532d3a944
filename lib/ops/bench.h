/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How fast an image answers: so many requests, so many of them at the same time. */
#ifndef IMGKIT_OPS_BENCH_H
#define IMGKIT_OPS_BENCH_H

#include "base/job.h"
#include "io/io.h"

#define BENCH_MAX_DEPTH 4096

struct bench_args {
	uint64_t count;        /* requests */
	unsigned depth;        /* in flight, 1 … BENCH_MAX_DEPTH: that many threads */
	size_t size;           /* bytes of a request, > 0 */
	uint64_t offset, step; /* of the first; from one to the next, bytes */
	bool write;
	unsigned char pattern;   /* that is written */
	uint64_t flush_interval; /* flush after so many requests; 0: never */
	bool drain;              /* no request is in flight while a flush is */
};

struct bench_result {
	double seconds;
	uint64_t requests, bytes, flushes;
	unsigned most; /* requests that were in flight at the same time */
};

/*
 * A request that would reach past the end begins at 0 instead. -EINVAL: one does not fit at all, or
 * the first begins past the end. -ECANCELED; what reading, writing and flushing fail with.
 */
int bench_run(struct io *io, const struct bench_args *args, struct bench_result *res,
	      struct job *job, struct err *err);

#endif
