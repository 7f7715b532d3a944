// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * bench; see bench.h. `depth` threads take requests from one counter and wait for each, so that many
 * are in flight as long as there are enough left.
 */
#include "ops/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"

struct bench {
	struct io *io;
	const struct bench_args *args;
	struct job *job;
	pthread_mutex_t lock;
	pthread_cond_t idle; /* with lock: in_flight became 0, or a flush ended */
	/* under lock: */
	uint64_t next, offset; /* of the next request */
	uint64_t unflushed;    /* requests since the last flush */
	unsigned in_flight, most;
	uint64_t done, flushes;
	bool flushing, failed;
};

static int check(const struct io *io, const struct bench_args *a, struct err *err)
{
	uint64_t size = io_size(io);

	if (!a->size || a->size > size)
		return err_set(err, EINVAL,
			       "%s: requests of %zu bytes do not fit into %" PRIu64 " bytes",
			       io->name, a->size, size);
	if (a->offset > size - a->size)
		return err_set(err, EINVAL,
			       "%s: a request at offset %" PRIu64 " would reach past the end",
			       io->name, a->offset);
	return 0;
}

/* Under lock. Flushes when it is time; with drain, others wait meanwhile. */
static int flush_if_due(struct bench *b, struct err *err)
{
	const struct bench_args *a = b->args;
	int r;

	while (b->flushing)
		pthread_cond_wait(&b->idle, &b->lock);
	if (!a->flush_interval || b->unflushed < a->flush_interval)
		return 0;
	b->unflushed = 0;
	b->flushing = a->drain;
	while (a->drain && b->in_flight)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
	r = io_flush(b->io, err);
	pthread_mutex_lock(&b->lock);
	b->flushes += r == 0;
	b->flushing = false;
	pthread_cond_broadcast(&b->idle);
	return r;
}

/* Under lock: the next request. False: there is none. */
static bool next_request(struct bench *b, uint64_t *offset)
{
	const struct bench_args *a = b->args;
	uint64_t last = io_size(b->io) - a->size;

	if (b->failed || b->next == a->count)
		return false;
	b->next++;
	b->unflushed++;
	*offset = b->offset;
	b->offset = a->step > last || b->offset > last - a->step ? 0 : b->offset + a->step;
	b->in_flight++;
	b->most = b->in_flight > b->most ? b->in_flight : b->most;
	return true;
}

static int request(struct bench *b, void *buf, uint64_t offset, struct err *err)
{
	if (job_cancelled(b->job))
		return err_set(err, ECANCELED, "cancelled");
	return b->args->write ? io_pwrite(b->io, buf, b->args->size, offset, err)
			      : io_pread(b->io, buf, b->args->size, offset, err);
}

static int work(void *ctx, unsigned worker, struct err *err)
{
	struct bench *b = ctx;
	CLEANUP_FREE void *buf = NULL;
	uint64_t offset;
	int r = 0;

	(void)worker;
	if (posix_memalign(&buf, 4096, b->args->size) != 0) {
		buf = NULL;
		r = err_nomem(err, b->args->size, "a buffer");
	} else {
		memset(buf, b->args->pattern, b->args->size);
	}
	pthread_mutex_lock(&b->lock);
	if (r == 0)
		r = flush_if_due(b, err);
	while (r == 0 && next_request(b, &offset)) {
		pthread_mutex_unlock(&b->lock);
		r = request(b, buf, offset, err);
		pthread_mutex_lock(&b->lock);
		b->done += r == 0;
		job_advance(b->job, b->args->size);
		if (--b->in_flight == 0)
			pthread_cond_broadcast(&b->idle);
		if (r == 0)
			r = flush_if_due(b, err);
	}
	b->failed |= r < 0;
	pthread_mutex_unlock(&b->lock);
	return r;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int bench_run(struct io *io, const struct bench_args *args, struct bench_result *res,
	      struct job *job, struct err *err)
{
	struct bench b = {
		.io = io,
		.args = args,
		.job = job,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.idle = PTHREAD_COND_INITIALIZER,
		.offset = args->offset,
	};
	double begin = now();
	int r = args->count ? check(io, args, err) : 0;

	*res = (struct bench_result){0};
	job_total(job, args->count * args->size);
	if (r == 0 && args->count)
		r = work_run((unsigned)min_u64(args->depth, args->count), work, &b, err);
	res->seconds = now() - begin;
	res->requests = b.done;
	res->bytes = b.done * args->size;
	res->flushes = b.flushes;
	res->most = b.most;
	pthread_cond_destroy(&b.idle);
	pthread_mutex_destroy(&b.lock);
	return r;
}
