/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work that is not done by who receives it, because that would keep it from receiving: requests to
 * slow storage, long ones, and flushes. See work.c.
 */
#ifndef IMGKIT_NBD_WORK_H
#define IMGKIT_NBD_WORK_H

#include "nbd-server/connection.h"

/* Of one export: who waits for the next flush. */
struct flusher {
	pthread_mutex_t lock; /* 3 */
	struct request *waiting, *waiting_last;
	bool running;
	_Atomic uint32_t cost; /* ns of a flush, averaged */
};

/* The owner keeps r for work_start; it counts as running from now on. */
void work_add(struct worker *w, struct request *r);

/* The connections have been given back: what was added is begun. */
void work_start(struct worker *w);

/* Does a part of what is in the queue. */
void work_turn(struct worker *w);

/* Averages of how long things take, to tell fast storage from slow. */
bool cost_slow(uint32_t cost);
/* A measurement that has begun; at 0: this one is not measured. */
struct stopwatch {
	uint64_t at;        /* ns */
	long waits, pushed; /* times that the thread gave up its CPU, or lost it */
};
/* Of a request to e: measures some of them, or all where e is slow. */
struct stopwatch cost_begin(struct worker *w, const struct nbd_export *e);
struct stopwatch cost_begin_always(void);
/* bytes: how many were copied, which takes time with any storage. */
void cost_end(_Atomic uint32_t *cost, const struct stopwatch *begun, uint64_t bytes);

#endif
