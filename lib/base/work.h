/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Worker threads: run one function in n threads and wait for all. */
#ifndef IMGKIT_BASE_WORK_H
#define IMGKIT_BASE_WORK_H

#include "base/err.h"

/*
 * Runs fn(ctx, 0 … n-1) in n threads (n = 1: in the caller's). Each call has its own struct err.
 * Returns 0, or the result of the first (in time) call that failed, with its text in err. It is
 * up to fn to see that another one failed and stop early. If only k < n threads can be started,
 * k do the work; if none can, the caller does it alone.
 */
int work_run(unsigned n, int (*fn)(void *ctx, unsigned worker, struct err *err), void *ctx,
	     struct err *err);

/* CPUs that this process may use, at least 1. */
unsigned work_cpus(void);

#endif
