// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* Comparing: the first difference, whoever finds it; what need not be read is not read. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "lib/rng.h"
#include "ops/compare.h"

static struct err e;

/* A disk with data in the first part of every 256 KiB. */
static struct io *some_disk(uint64_t size)
{
	struct io *io = disk_new("disk");
	static unsigned char buf[100000];

	ok(io_resize(io, size, &e), &e);
	for (uint64_t off = 0; off < size; off += 256 * KiB) {
		struct rng rng = {.state = off};

		rng_fill(&rng, buf, sizeof(buf));
		ok(io_pwrite(io, buf, min_u64(sizeof(buf), size - off), off, &e), &e);
	}
	return io;
}

static struct compare_result compare(struct io *a, struct io *b, bool strict, unsigned workers)
{
	const struct compare_args args = {.a = a, .b = b, .strict = strict, .workers = workers};
	struct compare_result res;

	ok(compare_run(&args, NULL, &res, &e), &e);
	return res;
}

static void same_is_same(void **state)
{
	struct io *a = some_disk(5 * MiB + 512), *b = some_disk(5 * MiB + 512);

	(void)state;
	for (unsigned n = 1; n < 5; n++)
		assert_int_equal(compare(a, b, false, n).kind, COMPARE_SAME);
	assert_int_equal(compare(a, a, true, 2).kind, COMPARE_SAME);
	io_close(a);
	io_close(b);
}

/* One byte differs: its sector is named, also when others behind it differ. */
static void first_difference_wins(void **state)
{
	struct io *a = some_disk(6 * MiB);

	(void)state;
	for (uint64_t at = 1; at < 6 * MiB; at = at * 3 + 511) {
		struct io *b = some_disk(6 * MiB);
		unsigned char c;

		for (uint64_t off = at; off < 6 * MiB; off += 300000) {
			ok(io_pread(b, &c, 1, off, &e), &e);
			c ^= 0x80;
			ok(io_pwrite(b, &c, 1, off, &e), &e);
		}
		for (unsigned n = 1; n < 5; n++) {
			struct compare_result res = compare(a, b, false, n);

			assert_int_equal(res.kind, COMPARE_CONTENT);
			assert_int_equal(res.offset, round_down(at, 512));
			assert_false(res.sizes_differ);
		}
		io_close(b);
	}
	io_close(a);
}

static void a_longer_one_must_end_in_zeros(void **state)
{
	struct io *a = some_disk(2 * MiB), *b = some_disk(2 * MiB);
	struct compare_result res;

	(void)state;
	ok(io_resize(b, 5 * MiB, &e), &e);
	res = compare(a, b, false, 2);
	assert_int_equal(res.kind, COMPARE_SAME);
	assert_true(res.sizes_differ);
	res = compare(b, a, true, 2);
	assert_int_equal(res.kind, COMPARE_SIZE);
	ok(io_pwrite(b, "x", 1, 4 * MiB + 1000, &e), &e);
	res = compare(b, a, false, 2);
	assert_int_equal(res.kind, COMPARE_CONTENT);
	assert_int_equal(res.offset, 4 * MiB + 512);
	assert_true(res.sizes_differ);
	ok(io_pwrite(a, "x", 1, 1000, &e), &e);
	res = compare(a, b, false, 2);
	assert_int_equal(res.offset, 512);
	assert_false(res.sizes_differ);
	io_close(a);
	io_close(b);
}

/* Holes and stored zeros are the same content, and not the same state. */
static void strict_looks_at_the_map(void **state)
{
	struct io *fa = disk_new("a"), *fb = disk_new("b");
	struct img *a, *b;
	struct compare_result res;

	(void)state;
	disk_create(fa, "qcow2", 2 * MiB, NULL, NULL, NULL);
	disk_create(fb, "qcow2", 2 * MiB, NULL, NULL, NULL);
	a = disk_open(fa, "qcow2", IMG_RDWR, NULL);
	b = disk_open(fb, "qcow2", IMG_RDWR, NULL);
	ok(io_pwrite(&a->io, "x", 1, 0, &e), &e);
	ok(io_pwrite(&b->io, "x", 1, 0, &e), &e);
	assert_int_equal(compare(&a->io, &b->io, true, 2).kind, COMPARE_SAME);
	ok(io_pwrite(&a->io, zero_buf, 1000, MiB + 70000, &e), &e);
	assert_int_equal(compare(&a->io, &b->io, false, 2).kind, COMPARE_SAME);
	res = compare(&a->io, &b->io, true, 2);
	assert_int_equal(res.kind, COMPARE_STATUS);
	assert_int_equal(res.offset, MiB + 65536);
	/* Content that differs before counts first. */
	ok(io_pwrite(&a->io, "y", 1, 600, &e), &e);
	res = compare(&a->io, &b->io, true, 2);
	assert_int_equal(res.kind, COMPARE_CONTENT);
	assert_int_equal(res.offset, 512);
	io_close(&a->io);
	io_close(&b->io);
	io_close(fa);
	io_close(fb);
}

static void holes_are_not_read(void **state)
{
	struct io *fa = disk_new("a"), *fb = disk_new("b");
	struct trace_stats stats = {0};
	struct io *traced;
	struct img *a, *b;

	(void)state;
	disk_create(fa, "qcow2", 512 * TiB, "cluster_size=2M", NULL, NULL);
	disk_create(fb, "qcow2", 512 * TiB, "cluster_size=2M", NULL, NULL);
	ok(trace_open(fa, false, &stats, &traced, &e), &e);
	a = disk_open(traced, "qcow2", IMG_RDWR, NULL);
	b = disk_open(fb, "qcow2", IMG_RDWR, NULL);
	assert_int_equal(compare(&a->io, &b->io, false, 2).kind, COMPARE_SAME);
	ok(io_pwrite(&a->io, "x", 1, 500 * TiB + 700, &e), &e);
	assert_int_equal(compare(&a->io, &b->io, false, 2).offset, 500 * TiB + 512);
	for (uint64_t off = 0; off < 16 * MiB; off += MiB)
		ok(io_pwrite(&a->io, "x", 1, off, &e), &e);
	stats.read_bytes = 0;
	/* The same file on both sides: nothing is read but two L2 tables of 2 MiB. */
	assert_int_equal(compare(&a->io, &a->io, false, 2).kind, COMPARE_SAME);
	assert_in_range(stats.read_bytes, 1, 4 * MiB);
	io_close(&a->io);
	io_close(&b->io);
	io_close(traced);
	io_close(fa);
	io_close(fb);
}

static void errors_say_what_failed(void **state)
{
	struct io *a = some_disk(3 * MiB), *mem = some_disk(3 * MiB), *b;
	struct fault_plan plan = {.code = EIO};
	struct compare_args args = {.workers = 3};
	struct compare_result res;
	struct job job = {0};
	bool done = false;

	(void)state;
	ok(fault_open(mem, false, &plan, &b, &e), &e);
	args.a = a;
	args.b = b;
	for (uint64_t n = 1; !done; n++) {
		int r;

		plan.fail_at = n;
		plan.calls = 0;
		e = (struct err){0};
		r = compare_run(&args, NULL, &res, &e);
		done = plan.calls < n;
		assert_int_equal(r, done ? 0 : -EIO);
		if (!done)
			assert_int_equal(res.failed,
					 strstr(e.msg, ": map: ") ? COMPARE_MAP : COMPARE_READ);
	}
	plan.fail_at = 0;
	atomic_store(&job.cancelled, true);
	fails(compare_run(&args, &job, &res, &e), -ECANCELED, &e, "cancelled");
	job = (struct job){0};
	ok(compare_run(&args, &job, &res, &e), &e);
	assert_int_equal(job.done, 3 * MiB);
	io_close(b);
	io_close(mem);
	io_close(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_is_same),
		cmocka_unit_test(first_difference_wins),
		cmocka_unit_test(a_longer_one_must_end_in_zeros),
		cmocka_unit_test(strict_looks_at_the_map),
		cmocka_unit_test(holes_are_not_read),
		cmocka_unit_test(errors_say_what_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
