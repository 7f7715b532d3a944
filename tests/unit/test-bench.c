// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bench keeps as many requests in flight as it was told, sends them where it was told, and flushes
 * when it was told. threads
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "ops/bench.h"

static struct err e;

/* An io whose requests wait for each other: with fewer than `depth` in flight they never end. */
struct crowd {
	struct io io; /* first */
	pthread_barrier_t all;
	pthread_mutex_t lock;
	unsigned reads, at_zero, flushes, in_flight, in_flight_at_flush;
	uint64_t last;
};

static struct crowd *crowd_of(struct io *io)
{
	return (struct crowd *)(void *)io;
}

static int crowd_request(struct crowd *g, uint64_t off)
{
	pthread_mutex_lock(&g->lock);
	g->reads++;
	g->in_flight++;
	g->at_zero += off == 0;
	g->last = max_u64(g->last, off);
	pthread_mutex_unlock(&g->lock);
	pthread_barrier_wait(&g->all);
	pthread_mutex_lock(&g->lock);
	g->in_flight--;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int crowd_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)err;
	memset(buf, 0, len);
	return crowd_request(crowd_of(io), off);
}

static int crowd_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)err;
	(void)len;
	assert_int_equal(*(const unsigned char *)buf, 0x5a);
	return crowd_request(crowd_of(io), off);
}

static int crowd_flush(struct io *io, struct err *err)
{
	struct crowd *g = crowd_of(io);

	(void)err;
	pthread_mutex_lock(&g->lock);
	g->flushes++;
	g->in_flight_at_flush += g->in_flight;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static void crowd_close(struct io *io)
{
	pthread_barrier_destroy(&crowd_of(io)->all);
	pthread_mutex_destroy(&crowd_of(io)->lock);
	free(io);
}

static const struct io_ops crowd_ops = {
	.name = "crowd",
	.pread = crowd_pread,
	.pwrite = crowd_pwrite,
	.flush = crowd_flush,
	.close = crowd_close,
};

static struct crowd *crowd_open(uint64_t size, unsigned depth)
{
	struct crowd *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	ok(io_init(&g->io, &crowd_ops, "crowd", &e), &e);
	g->io.size = size;
	assert_int_equal(pthread_barrier_init(&g->all, NULL, depth), 0);
	assert_int_equal(pthread_mutex_init(&g->lock, NULL), 0);
	return g;
}

static void test_depth(void **state)
{
	const struct bench_args args = {.count = 96, .depth = 12, .size = 512, .step = 512};
	struct crowd *g = crowd_open(64 * KiB, args.depth);
	struct bench_result res;
	struct job job = {0};

	(void)state;
	ok(bench_run(&g->io, &args, &res, &job, &e), &e);
	assert_int_equal(g->reads, 96);
	assert_int_equal(res.requests, 96);
	assert_int_equal(res.bytes, 96 * 512);
	assert_int_equal(res.most, 12);
	assert_int_equal(res.flushes, 0);
	assert_int_equal(job.done, job.total);
	io_close(&g->io);
}

static void test_places(void **state)
{
	const struct bench_args args = {
		.count = 10, .depth = 1, .size = 1024, .offset = 512, .step = 3000};
	struct crowd *g = crowd_open(10 * KiB, 1);
	struct bench_result res;

	(void)state;
	ok(bench_run(&g->io, &args, &res, NULL, &e), &e);
	assert_int_equal(g->last, 3000 * 3); /* 9216 is the last place for a request */
	assert_int_equal(g->at_zero, 2);     /* 512 3512 6512 | 0 3000 6000 9000 | 0 … */
	io_close(&g->io);
}

static void test_flushes(void **state)
{
	const struct bench_args args = {.count = 64,
					.depth = 4,
					.size = 512,
					.step = 512,
					.write = true,
					.pattern = 0x5a,
					.flush_interval = 16,
					.drain = true};
	struct crowd *g = crowd_open(64 * KiB, 4);
	struct bench_result res;

	(void)state;
	ok(bench_run(&g->io, &args, &res, NULL, &e), &e);
	assert_int_equal(g->flushes, res.flushes);
	assert_int_equal(res.flushes, 4); /* four requests a time: each 16th ends a round */
	assert_int_equal(g->in_flight_at_flush, 0);
	io_close(&g->io);
}

static void test_errors(void **state)
{
	struct bench_args args = {.count = 10, .depth = 2, .size = 4096, .step = 4096};
	struct job job = {.cancelled = true};
	struct fault_plan plan = {.fail_at = 3, .code = EIO};
	struct bench_result res;
	struct io *mem, *io;

	(void)state;
	ok(mem_open("mem", 10 * KiB, &mem, &e), &e);
	args.offset = 7 * KiB;
	assert_int_equal(bench_run(mem, &args, &res, NULL, &e), -EINVAL);
	args.offset = 0;
	args.size = 11 * KiB;
	assert_int_equal(bench_run(mem, &args, &res, NULL, &e), -EINVAL);
	args.size = 4096;
	assert_int_equal(bench_run(mem, &args, &res, &job, &e), -ECANCELED);
	ok(fault_open(mem, true, &plan, &io, &e), &e);
	assert_int_equal(bench_run(io, &args, &res, NULL, &e), -EIO);
	io_close(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_flushes),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
