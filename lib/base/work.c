// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Fork and join; see work.h.
 *
 * The calling thread is one of the n workers, so there is always at least one, and a machine that
 * refuses new threads only makes the work slower. Workers block all signals: handlers run in the
 * threads of the program, and system calls of workers are not interrupted.
 */
#include "base/work.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* What all workers of one work_run share. */
struct crew {
	int (*fn)(void *ctx, unsigned worker, struct err *err);
	void *ctx;
	pthread_mutex_t lock;
	int result;      /* under lock: of the first that failed */
	struct err *err; /* under lock once workers run; the caller's, may be NULL */
};

struct worker {
	struct crew *crew;
	unsigned index;
	pthread_t thread;
};

static void work(struct crew *crew, unsigned index)
{
	struct err err = {0};
	int r = crew->fn(crew->ctx, index, &err);

	if (r >= 0)
		return;
	pthread_mutex_lock(&crew->lock);
	if (crew->result == 0) {
		crew->result = r;
		if (crew->err)
			*crew->err = err;
	}
	pthread_mutex_unlock(&crew->lock);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	work(w->crew, w->index);
	return NULL;
}

/* Starts workers 1 … n-1 and returns how many run; they are w[0 …]. */
static unsigned start_workers(struct crew *crew, struct worker *w, unsigned n)
{
	sigset_t all, old;
	unsigned started = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (started < n - 1) {
		w[started] = (struct worker){.crew = crew, .index = started + 1};
		if (pthread_create(&w[started].thread, NULL, worker_main, &w[started]) != 0)
			break;
		started++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return started;
}

int work_run(unsigned n, int (*fn)(void *ctx, unsigned worker, struct err *err), void *ctx,
	     struct err *err)
{
	struct crew crew = {.fn = fn, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER, .err = err};
	struct worker *w = n > 1 ? calloc(n - 1, sizeof(*w)) : NULL;
	unsigned started = w ? start_workers(&crew, w, n) : 0;

	work(&crew, 0);
	for (unsigned i = 0; i < started; i++)
		pthread_join(w[i].thread, NULL);
	free(w);
	pthread_mutex_destroy(&crew.lock);
	return crew.result;
}

unsigned work_cpus(void)
{
	cpu_set_t set;
	long online;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		return (unsigned)CPU_COUNT(&set);
	/* More CPUs than the fixed-size set can hold. */
	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}
