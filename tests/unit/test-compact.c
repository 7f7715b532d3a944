// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Compaction: what moves, cancel and failure at every write, no space left. (Power cuts, failing calls and random
 * operations: tests/crash, fault, model; images of the peer: tests/interop/compact.)
 * threads
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "disk.h"
#include "ops/amend.h"
#include "ops/compact.h"
#include "rng.h"

#define SIZE    (1 * MiB)
#define CLUSTER 4096

/* What does nothing at the same time needs no ThreadSanitizer, which makes it ten times slower. */
#ifdef __SANITIZE_THREAD__
static const bool only_threads = true;
#else
static const bool only_threads = false;
#endif

static struct err e;

static enum fill fill_kind(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_DATA, FILL_CODED, FILL_DATA, FILL_NONE, FILL_CODED};

	(void)ctx;
	return kinds[cluster / 3 % ARRAY_LEN(kinds)];
}

/* Data and compressed clusters with holes in between, and with a snapshot. */
static struct io *holed_image(void)
{
	struct fill_args args = {.size = SIZE, .kind = fill_kind, .opts = "cluster_size=4096"};
	struct io *file = disk_new("holed.qcow2");
	unsigned char *data = malloc(SIZE);
	struct rng rng = {5};
	struct img *img;

	assert_non_null(data);
	rng_fill(&rng, data, SIZE);
	for (size_t i = 0; i < SIZE; i++)
		data[i] &= 7;
	args.data = data;
	disk_fill(file, "qcow2", &args);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(io_discard(&img->io, 10 * CLUSTER, 60 * CLUSTER, &e), &e);
	ok(img_snapshot_create(img, "s", NULL, &e), &e);
	for (unsigned i = 0; i < 40; i++)
		ok(io_pwrite(&img->io, data, CLUSTER, i * 5 * CLUSTER, &e), &e);
	ok(io_discard(&img->io, 80 * CLUSTER, 90 * CLUSTER, &e), &e);
	ok(io_flush(&img->io, &e), &e);
	io_close(&img->io);
	free(data);
	return file;
}

static unsigned char *content(struct io *file, bool snapshot)
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	unsigned char *p = malloc(SIZE);
	unsigned index;

	assert_non_null(p);
	if (snapshot) {
		ok(img_snapshot_find(img, "s", &index, &e), &e);
		ok(img_snapshot_view(img, index, &e), &e);
	}
	ok(io_pread(&img->io, p, SIZE, 0, &e), &e);
	io_close(&img->io);
	return p;
}

/* Both files hold the same disk and snapshot, and nothing is wrong with b. */
static void same(struct io *a, struct io *b, bool leaks)
{
	struct check_result res;
	struct img *img = disk_open(b, "qcow2", 0, NULL);

	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	io_close(&img->io);
	assert_true(!res.corruptions && !res.check_errors && (leaks || !res.leaks));
	for (int i = 0; i < 2; i++) {
		unsigned char *x = content(a, i), *y = content(b, i);

		assert_memory_equal(x, y, SIZE);
		free(x);
		free(y);
	}
}

static void closes_holes(void **state)
{
	struct io *before = holed_image(), *file = disk_copy(before, "file.qcow2");
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	struct compact_result res;
	uint64_t used;

	(void)state;
	ok(compact_run(img, &res, NULL, &e), &e);
	ok(img->fmt->count_used(img, UINT64_MAX, &used, &e), &e);
	assert_int_equal(res.size_before, io_size(before));
	assert_int_equal(res.size_after, used * CLUSTER);
	assert_int_equal(io_size(file), used * CLUSTER);
	assert_true(res.moved > 0 && res.left == 0 && res.size_after < res.size_before);
	ok(compact_run(img, &res, NULL, &e), &e);
	assert_int_equal(res.moved, 0);
	io_close(&img->io);
	same(before, file, false);
	io_close(file);
	io_close(before);
}

/* ---- bitmaps ---- */

#define BITS (SIZE / 512 / 8) /* bytes of the finer one: a part of one cluster */

/* Two bitmaps behind everything else, and the clusters in front of them free. */
static struct io *image_with_bitmaps(void)
{
	struct io *file = disk_new("bitmaps.qcow2");
	unsigned char buf[CLUSTER];
	struct img *img;

	disk_create(file, "qcow2", SIZE, "cluster_size=4096", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	for (unsigned i = 0; i < SIZE / CLUSTER; i += 2) {
		memset(buf, (int)i + 1, CLUSTER);
		ok(io_pwrite(&img->io, buf, CLUSTER, i * CLUSTER, &e), &e);
	}
	ok(io_flush(&img->io, &e), &e);
	ok(img_bitmap_add(img, "fine", 512, true, &e), &e);
	ok(img_bitmap_add(img, "coarse", 64 * KiB, false, &e), &e);
	for (unsigned i = 0; i < 25; i++)
		ok(img_bitmap_set(img, 0, i * 9 * CLUSTER, 512 + i * 700, &e), &e);
	ok(img_bitmap_set(img, 1, 300 * KiB, 100 * KiB, &e), &e);
	ok(img_settle(img, &e), &e);
	ok(io_discard(&img->io, 8 * CLUSTER, 100 * CLUSTER, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	return file;
}

static void read_bits(struct io *file, unsigned char bits[2][BITS], struct bitmap which[2])
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	unsigned n;

	ok(img_bitmaps(img, &n, &e), &e);
	assert_int_equal(n, 2);
	memset(bits, 0, 2 * BITS);
	for (unsigned i = 0; i < 2; i++) {
		img_bitmap_get(img, i, &which[i]);
		which[i].name = NULL; /* borrowed */
		ok(img_bitmap_read(img, i, 0, bits[i], i ? 2 : BITS, &e), &e);
	}
	io_close(&img->io);
}

static void same_bitmaps(struct io *a, struct io *b)
{
	static unsigned char x[2][BITS], y[2][BITS];
	struct bitmap p[2], q[2];

	read_bits(a, x, p);
	read_bits(b, y, q);
	assert_memory_equal(x, y, sizeof(x));
	for (unsigned i = 0; i < 2; i++)
		assert_true(p[i].granularity == q[i].granularity && p[i].enabled == q[i].enabled &&
			    !q[i].inconsistent && !q[i].in_use);
	assert_false(bytes_are_zero(x[0], BITS) || bytes_are_zero(x[1], 2));
}

static void same_disk_and_bitmaps(struct io *a, struct io *b, bool leaks)
{
	unsigned char *x = content(a, false), *y = content(b, false);
	struct img *img = disk_open(b, "qcow2", 0, NULL);
	struct check_result res;

	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	io_close(&img->io);
	assert_true(!res.corruptions && !res.check_errors && (leaks || !res.leaks));
	assert_memory_equal(x, y, SIZE);
	free(x);
	free(y);
	same_bitmaps(a, b);
}

/* Clusters of bits, tables and directory go where there is room; the next change finds them. */
static void moves_bitmaps(void **state)
{
	struct io *before = image_with_bitmaps(), *file = disk_copy(before, "file.qcow2");
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	unsigned char bits[BITS];
	struct compact_result res;
	uint64_t used;

	(void)state;
	ok(compact_run(img, &res, NULL, &e), &e);
	ok(img->fmt->count_used(img, UINT64_MAX, &used, &e), &e);
	assert_true(res.moved > 6 * CLUSTER); /* two tables, their bits, the directory, data */
	assert_int_equal(res.left, 0);
	assert_int_equal(io_size(file), used * CLUSTER);
	assert_true(res.size_after < res.size_before);
	same_disk_and_bitmaps(before, file, false);
	ok(io_pwrite(&img->io, "x", 1, SIZE - 1, &e), &e);
	ok(img_settle(img, &e), &e);
	ok(img_bitmap_read(img, 0, 0, bits, BITS, &e), &e);
	assert_int_equal(bits[BITS - 1], 0x80);
	ok(compact_run(img, &res, NULL, &e), &e);
	assert_int_equal(res.left, 0);
	io_close(&img->io);
	io_close(file);
	io_close(before);
}

/* Active L1 table and refcount table behind everything else, too. */
static struct io *image_with_far_tables(void)
{
	struct io *file = disk_new("far.qcow2");
	unsigned char buf[CLUSTER];
	struct opts opts = {0};
	struct img *img;

	disk_create(file, "qcow2", SIZE, "cluster_size=4096", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(img_snapshot_create(img, "s", NULL, &e), &e);
	for (unsigned i = 0; i < SIZE / CLUSTER; i++) {
		memset(buf, (int)i + 1, CLUSTER);
		ok(io_pwrite(&img->io, buf, CLUSTER, i * CLUSTER, &e), &e);
	}
	ok(img_resize(img, 2048 * MiB, PREALLOC_OFF, &e), &e);
	ok(opts_set(&opts, "refcount_bits", "32", &e), &e);
	ok(amend(img, &opts, 0, NULL, &e), &e);
	opts_free(&opts);
	ok(io_discard(&img->io, 8 * CLUSTER, 200 * CLUSTER, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	return file;
}

static void same_with_leaks(struct io *a, struct io *b, bool bitmaps, bool leaks)
{
	if (bitmaps)
		same_disk_and_bitmaps(a, b, leaks);
	else
		same(a, b, leaks);
}

/* Every change to the file fails once, then the image is used on. */
static void fails_anywhere(struct io *before, bool bitmaps, int code)
{
	bool failed = true;

	for (uint64_t at = 1; failed; at++) {
		struct fault_plan plan = {.fail_at = at, .writes_only = true, .code = code};
		struct io *file = disk_copy(before, "file.qcow2"), *io;
		struct compact_result res;
		struct img *img;

		ok(fault_open(file, false, &plan, &io, &e), &e);
		ok(img_open_io(io, "qcow2", IMG_RDWR, NULL, &img, &e), &e);
		compact_run(img, &res, NULL, NULL); /* a discard may fail */
		failed = atomic_load(&plan.calls) >= at;
		plan.fail_at = 0;
		/* Writes the directory as it is in memory now; refused where the image is broken. */
		if (bitmaps && img_bitmap_enable(img, 0, false, NULL) == 0)
			ok(img_bitmap_enable(img, 0, true, &e), &e);
		io_close(&img->io);
		same_with_leaks(before, file, bitmaps, true);
		img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		ok(compact_run(img, &res, NULL, &e), &e);
		assert_int_equal(res.left, 0);
		io_close(&img->io);
		same_with_leaks(before, file, bitmaps, false);
		io_close(file);
	}
	io_close(before);
}

static void stops_at_errors(void **state)
{
	(void)state;
	if (only_threads)
		return;
	fails_anywhere(image_with_bitmaps(), true, EIO);
	fails_anywhere(image_with_far_tables(), false, EIO);
}

static void stops_at_full_disks(void **state)
{
	(void)state;
	if (only_threads)
		return;
	fails_anywhere(image_with_bitmaps(), true, ENOSPC);
	fails_anywhere(image_with_far_tables(), false, ENOSPC);
}

static void stops_anywhere(void **state)
{
	struct io *before = holed_image();
	bool cancelled = true;

	(void)state;
	for (uint64_t at = 1; cancelled; at++) {
		struct fault_plan plan = {.fail_at = at, .writes_only = true};
		struct io *file = disk_copy(before, "file.qcow2"), *io;
		struct compact_result res, next;
		struct job job = {0};
		struct img *img;
		int r;

		plan.raise = &job.cancelled;
		ok(fault_open(file, false, &plan, &io, &e), &e);
		ok(img_open_io(io, "qcow2", IMG_RDWR, NULL, &img, &e), &e);
		r = compact_run(img, &res, &job, &e);
		assert_true(r == 0 || r == -ECANCELED);
		cancelled = atomic_load(&job.cancelled);
		assert_true(res.size_after <= res.size_before);
		same(before, file, true);
		plan.fail_at = 0;
		ok(compact_run(img, &next, NULL, &e), &e);
		assert_int_equal(next.left, 0);
		io_close(&img->io);
		same(before, file, false);
		io_close(file);
	}
	io_close(before);
}

static void refuses(void **state)
{
	struct io *file = holed_image(), *raw = disk_new("raw");
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	struct compact_result res;

	(void)state;
	fails(compact_run(img, &res, NULL, &e), -EROFS, &e, "read-only");
	io_close(&img->io);
	img = disk_open(raw, "raw", IMG_RDWR, NULL);
	fails(compact_run(img, &res, NULL, &e), -ENOTSUP, &e, "cannot be compacted");
	io_close(&img->io);
	io_close(raw);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(closes_holes),        cmocka_unit_test(stops_anywhere),
		cmocka_unit_test(moves_bitmaps),       cmocka_unit_test(stops_at_errors),
		cmocka_unit_test(stops_at_full_disks), cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
