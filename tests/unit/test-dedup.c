// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sharing of equal clusters: what is shared and what not, hashes that collide, narrow refcounts.
 * (Power cuts, failing calls, random operations: tests/crash, fault, model.)
 * threads
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "disk.h"
#include "mix.h"
#include "ops/dedup.h"

#define CLUSTER 4096
#define N       64

static struct err e;
static const struct dedup_args plain = {.hash = &mix_hash};
static const struct dedup_args within = {.hash = &mix_hash, .within = true};

/* Clusters first … first+n-1 become `value` all over. */
static void put(struct img *img, uint64_t first, uint64_t n, unsigned char value)
{
	unsigned char buf[CLUSTER];

	memset(buf, value, sizeof(buf));
	for (uint64_t k = first; k < first + n; k++)
		ok(io_pwrite(&img->io, buf, CLUSTER, k * CLUSTER, &e), &e);
}

static void expect_all(struct img *img, uint64_t first, uint64_t n, unsigned char value)
{
	unsigned char buf[CLUSTER], want[CLUSTER];

	memset(want, value, sizeof(want));
	for (uint64_t k = first; k < first + n; k++) {
		ok(io_pread(&img->io, buf, CLUSTER, k * CLUSTER, &e), &e);
		assert_memory_equal(buf, want, CLUSTER);
	}
}

static struct img *new_image(struct io **file, const char *more)
{
	char opts[100];

	snprintf(opts, sizeof(opts), "cluster_size=4096%s", more);
	*file = disk_new("file.qcow2");
	disk_create(*file, "qcow2", N * CLUSTER, opts, NULL, NULL);
	return disk_open(*file, "qcow2", IMG_RDWR, NULL);
}

static void sound(struct img *img)
{
	struct check_result res;

	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	assert_true(!res.corruptions && !res.leaks && !res.check_errors);
}

static void with_snapshot(void **state)
{
	struct dedup_result res;
	struct io *file;
	struct img *img = new_image(&file, "");
	unsigned index;

	(void)state;
	for (unsigned char k = 0; k < 10; k++)
		put(img, k, 1, (unsigned char)(k + 1));
	ok(img_snapshot_create(img, "s", NULL, &e), &e);
	for (unsigned char k = 0; k < 10; k++)
		put(img, k, 1, (unsigned char)(k + 1));
	ok(dedup_run(img, &plain, &res, NULL, &e), &e);
	assert_int_equal(res.freed, 10 * CLUSTER);
	assert_int_equal(res.scanned, 20 * CLUSTER);
	sound(img);
	put(img, 3, 1, 0xee);
	ok(img_settle(img, &e), &e);
	sound(img);
	for (unsigned char k = 0; k < 10; k++)
		expect_all(img, k, 1, k == 3 ? 0xee : (unsigned char)(k + 1));
	ok(img_snapshot_find(img, "s", &index, &e), &e);
	ok(img_snapshot_apply(img, index, &e), &e);
	expect_all(img, 3, 1, 4);
	ok(img_snapshot_remove(img, index, &e), &e);
	sound(img);
	io_close(&img->io);
	io_close(file);
}

static void inside_disk(void **state)
{
	struct dedup_result res;
	struct check_result check;
	struct io *file;
	struct img *img = new_image(&file, "");

	(void)state;
	put(img, 0, 20, 7);
	put(img, 20, 5, 8);
	ok(dedup_run(img, &plain, &res, NULL, &e), &e);
	assert_int_equal(res.freed, 0);
	ok(dedup_run(img, &within, &res, NULL, &e), &e);
	assert_int_equal(res.freed, (19 + 4) * CLUSTER);
	assert_true(res.size_after < res.size_before);
	sound(img);
	put(img, 1, 1, 9);
	put(img, 20, 4, 9);
	expect_all(img, 0, 1, 7);
	expect_all(img, 2, 18, 7);
	expect_all(img, 24, 1, 8);
	/* One sharer is left: what checks call an error, and mend without being told to. */
	ok(img_settle(img, &e), &e);
	ok(img_check(img, CHECK_FIX_LEAKS, &check, NULL, NULL, &e), &e);
	sound(img);
	put(img, 24, 1, 10);
	expect_all(img, 24, 1, 10);
	io_close(&img->io);
	io_close(file);
}

/* Equal hashes are not equal data. */
static void collisions(void **state)
{
	const struct dedup_args stuck = {.hash = &stuck_hash, .within = true};
	struct dedup_result res;
	struct io *file;
	struct img *img = new_image(&file, "");

	(void)state;
	put(img, 0, 3, 1);
	put(img, 3, 6, 2);
	ok(dedup_run(img, &stuck, &res, NULL, &e), &e);
	assert_int_equal(res.freed, 2 * CLUSTER);
	expect_all(img, 0, 3, 1);
	expect_all(img, 3, 6, 2);
	sound(img);
	io_close(&img->io);
	io_close(file);
}

/* A refcount of 2 bits counts to 3: ten sharers need four clusters. One bit: none can share. */
static void narrow_refcounts(void **state)
{
	static const struct {
		const char *opts;
		unsigned freed;
	} cases[] = {{",refcount_bits=1", 0}, {",refcount_bits=2", 6}, {",refcount_bits=4", 9}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct dedup_result res;
		struct io *file;
		struct img *img = new_image(&file, cases[i].opts);

		put(img, 0, 10, 5);
		ok(dedup_run(img, &within, &res, NULL, &e), &e);
		assert_int_equal(res.freed, cases[i].freed * CLUSTER);
		expect_all(img, 0, 10, 5);
		sound(img);
		io_close(&img->io);
		io_close(file);
	}
}

static void refuses(void **state)
{
	const struct dedup_args shorter = {
		.hash = &(struct checksum_hash){8, mix_hash.open, mix_hash.close, mix_hash.digest}};
	struct job job = {.cancelled = true};
	struct io *file, *raw = disk_new("raw");
	struct img *img = new_image(&file, "");
	struct dedup_result res;

	(void)state;
	put(img, 0, 5, 1);
	fails(dedup_run(img, &shorter, &res, NULL, &e), -EINVAL, &e, "too short");
	assert_int_equal(dedup_run(img, &within, &res, &job, &e), -ECANCELED);
	sound(img);
	ok(dedup_run(img, &within, &res, NULL, &e), &e);
	assert_int_equal(res.freed, 4 * CLUSTER);
	io_close(&img->io);
	img = disk_open(file, "qcow2", 0, NULL);
	fails(dedup_run(img, &plain, &res, NULL, &e), -EROFS, &e, "read-only");
	io_close(&img->io);
	img = disk_open(raw, "raw", IMG_RDWR, NULL);
	fails(dedup_run(img, &plain, &res, NULL, &e), -ENOTSUP, &e, "cannot share");
	io_close(&img->io);
	io_close(raw);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_snapshot), cmocka_unit_test(inside_disk),
		cmocka_unit_test(collisions),    cmocka_unit_test(narrow_refcounts),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
