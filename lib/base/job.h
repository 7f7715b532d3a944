/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Progress and cancel of one long operation, shared between the threads that work and the one that
 * watches. The library only stores numbers; who watches samples them when it likes (a ticker
 * thread, a signal handler): no callbacks, no locks. NULL is a valid job everywhere.
 */
#ifndef IMGKIT_BASE_JOB_H
#define IMGKIT_BASE_JOB_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct job {
	atomic_bool cancelled;        /* set by the watcher; async-signal-safe */
	_Atomic uint64_t done, total; /* bytes of guest data unless the operation says otherwise */
};

static inline void job_total(struct job *job, uint64_t total)
{
	if (job)
		atomic_store_explicit(&job->total, total, memory_order_relaxed);
}

static inline void job_advance(struct job *job, uint64_t n)
{
	if (job)
		atomic_fetch_add_explicit(&job->done, n, memory_order_relaxed);
}

static inline bool job_cancelled(struct job *job)
{
	return job && atomic_load_explicit(&job->cancelled, memory_order_relaxed);
}

#endif
