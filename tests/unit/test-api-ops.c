// SPDX-License-Identifier: GPL-2.0-or-later
/* The operations of the public API on whole images, in the current directory. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "imgkit.h"

#define SIZE (UINT64_C(16) << 20)

static struct imgkit_err err;

static struct imgkit_image *open_image(const char *path, unsigned flags)
{
	IMGKIT_OPTS(imgkit_open_opts, o);
	struct imgkit_image *image = NULL;

	o.flags = flags;
	ok(imgkit_open(path, &o, &image, &err), &err);
	return image;
}

/* A qcow2 image with text in the middle. */
static void make_source(const char *path, const char *text)
{
	IMGKIT_OPTS(imgkit_create_opts, o);
	struct imgkit_image *image;

	o.flags = IMGKIT_FORCE;
	ok(imgkit_create(path, "qcow2", SIZE, &o, &err), &err);
	image = open_image(path, IMGKIT_RDWR);
	ok(imgkit_pwrite(image, text, strlen(text), SIZE / 2, &err), &err);
	ok(imgkit_flush(image, &err), &err);
	imgkit_close(image);
}

static int same(const char *a, const char *b, uint64_t *where)
{
	struct imgkit_image *ia = open_image(a, 0), *ib = open_image(b, 0);
	struct imgkit_compare_result result = {.equal = 2};

	ok(imgkit_compare(ia, ib, &result, NULL, &err), &err);
	imgkit_close(ia);
	imgkit_close(ib);
	if (where)
		*where = result.first_difference;
	return result.equal;
}

static void test_convert(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);
	struct imgkit_job *job = imgkit_job_new();
	uint64_t done = 0, total = 0;

	(void)state;
	assert_non_null(job);
	unlink("raw");
	make_source("source", "hello");
	ok(imgkit_convert("source", "raw", "raw", NULL, job, &err), &err);
	imgkit_job_progress(job, &done, &total);
	assert_true(total > 0 && done == total);
	assert_int_equal(same("source", "raw", NULL), 1);

	/* What is there stays, unless told otherwise. */
	assert_int_equal(imgkit_convert("source", "raw", "raw", NULL, NULL, &err), -EEXIST);
	o.flags = IMGKIT_CONVERT_FORCE | IMGKIT_CONVERT_COMPRESS;
	o.options = "compression_type=zstd,cluster_size=4096";
	o.workers = 2;
	ok(imgkit_convert("source", "raw", "qcow2", &o, NULL, &err), &err);
	assert_int_equal(same("source", "raw", NULL), 1);
	imgkit_job_free(job);
	imgkit_job_free(NULL);
}

static void test_convert_in_place(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);

	(void)state;
	make_source("source", "hello");
	make_source("target", "howdy");
	o.flags = IMGKIT_CONVERT_IN_PLACE;
	ok(imgkit_convert("source", "target", "qcow2", &o, NULL, &err), &err);
	assert_int_equal(same("source", "target", NULL), 1);
}

static void test_convert_snapshot(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);
	struct imgkit_image *image;

	(void)state;
	make_source("source", "before");
	make_source("wanted", "before");
	image = open_image("source", IMGKIT_RDWR);
	ok(imgkit_snapshot_create(image, "s", &err), &err);
	ok(imgkit_pwrite(image, "after!", 6, SIZE / 2, &err), &err);
	imgkit_close(image);
	o.flags = IMGKIT_CONVERT_FORCE;
	o.snapshot = "s";
	ok(imgkit_convert("source", "old", "raw", &o, NULL, &err), &err);
	assert_int_equal(same("wanted", "old", NULL), 1);
	assert_int_equal(same("source", "old", NULL), 0);
}

static void test_convert_cancelled(void **state)
{
	struct imgkit_job *job = imgkit_job_new();

	(void)state;
	assert_non_null(job);
	make_source("source", "hello");
	unlink("cancelled");
	imgkit_job_cancel(job);
	assert_int_equal(imgkit_convert("source", "cancelled", "raw", NULL, job, &err), -ECANCELED);
	assert_int_equal(access("cancelled", F_OK), -1);
	imgkit_job_free(job);
}

static void test_convert_errors(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);

	(void)state;
	make_source("source", "hello");
	assert_int_equal(imgkit_convert("missing", "x", "raw", NULL, NULL, &err), -ENOENT);
	assert_int_equal(imgkit_convert("source", "x", NULL, NULL, NULL, &err), -EINVAL);
	assert_int_equal(imgkit_convert("source", "x", "none", NULL, NULL, &err), -EINVAL);
	o.flags = IMGKIT_CONVERT_TARGET_ZERO;
	assert_int_equal(imgkit_convert("source", "x", "raw", &o, NULL, &err), -EINVAL);
	o.flags = 0;
	o.open_flags = IMGKIT_RDWR;
	assert_int_equal(imgkit_convert("source", "x", "raw", &o, NULL, &err), -EINVAL);
	o.open_flags = 0;
	o.options = "no_such_option=1";
	assert_int_equal(imgkit_convert("source", "x", "qcow2", &o, NULL, &err), -EINVAL);
	assert_int_equal(access("x", F_OK), -1);
}

static void test_compare(void **state)
{
	uint64_t where;

	(void)state;
	make_source("a", "hello");
	make_source("b", "hellO");
	assert_int_equal(same("a", "a", NULL), 1);
	assert_int_equal(same("a", "b", &where), 0);
	assert_true(where == SIZE / 2);
}

static void count_line(void *ctx, const char *text)
{
	assert_non_null(text);
	assert_null(strchr(text, '\n'));
	++*(unsigned *)ctx;
}

static void test_check(void **state)
{
	IMGKIT_OPTS(imgkit_check_opts, o);
	struct imgkit_check_result result;
	unsigned lines = 0;
	FILE *f;

	(void)state;
	make_source("checked", "hello");
	o.finding = count_line;
	o.ctx = &lines;
	ok(imgkit_check("checked", &o, &result, sizeof(result), NULL, &err), &err);
	assert_int_equal(lines, 0);
	assert_true(result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0);
	assert_true(result.total_clusters == SIZE / 65536 && result.allocated_clusters == 1);

	/* Byte 0 of the refcount block, which a new image has in its third cluster, counts the
	 * header: a count too high is a leak, and can be mended. */
	f = fopen("checked", "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, 2 * 65536 + 1, SEEK_SET), 0);
	assert_int_equal(fputc(2, f), 2);
	assert_int_equal(fclose(f), 0);
	ok(imgkit_check("checked", &o, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.leaks == 1 && lines == 1);
	o.flags = IMGKIT_FIX_LEAKS;
	ok(imgkit_check("checked", &o, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.leaks == 0 && result.leaks_fixed == 1);
	o.flags = 0;
	ok(imgkit_check("checked", &o, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.leaks == 0 && result.leaks_fixed == 0);

	f = fopen("plain", "w");
	assert_non_null(f);
	assert_int_equal(fclose(f), 0);
	o.format = "raw";
	assert_int_equal(imgkit_check("plain", &o, &result, sizeof(result), NULL, &err), -ENOTSUP);
}

static void test_compact(void **state)
{
	struct imgkit_compact_result result;
	struct imgkit_image *image;
	char text[6] = "";

	(void)state;
	make_source("compacted", "hello");
	image = open_image("compacted", IMGKIT_RDWR);
	ok(imgkit_pwrite(image, "front", 5, 0, &err), &err);
	ok(imgkit_discard(image, SIZE / 2, SIZE / 2, &err), &err);
	ok(imgkit_compact(image, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.moved == 65536 && result.left == 0);
	assert_true(result.size_before - result.size_after == 65536);
	ok(imgkit_pread(image, text, 5, 0, &err), &err);
	assert_string_equal(text, "front");
	assert_int_equal(imgkit_compact(image, &result, 0, NULL, &err), -EINVAL);
	imgkit_close(image);
	image = open_image("compacted", 0);
	assert_int_equal(imgkit_compact(image, &result, sizeof(result), NULL, &err), -EROFS);
	imgkit_close(image);
}

static int sum_hash(void *ctx, const void *data, size_t len, unsigned char *out)
{
	unsigned sum = 0;

	++*(unsigned *)ctx;
	for (size_t i = 0; i < len; i++)
		sum = sum * 31 + ((const unsigned char *)data)[i];
	memset(out, 0, 16);
	memcpy(out, &sum, sizeof(sum));
	return 0;
}

static void test_dedup(void **state)
{
	IMGKIT_OPTS(imgkit_dedup_opts, o);
	struct imgkit_dedup_result result;
	struct imgkit_image *image;
	unsigned calls = 0;

	(void)state;
	make_source("twins", "hello");
	image = open_image("twins", IMGKIT_RDWR);
	ok(imgkit_pwrite(image, "hello", 5, 0, &err), &err);
	assert_int_equal(imgkit_dedup(image, &o, &result, sizeof(result), NULL, &err), -EINVAL);
	o.hash = sum_hash;
	o.ctx = &calls;
	ok(imgkit_dedup(image, &o, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.scanned == 2 * 65536 && result.freed == 0 && calls == 2);
	o.flags = IMGKIT_DEDUP_WITHIN_DISK;
	ok(imgkit_dedup(image, &o, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.freed == 65536 && result.size_after < result.size_before);
	imgkit_close(image);
}

static void test_sparsify(void **state)
{
	static const char zeros[65536];
	struct imgkit_sparsify_result result;
	struct imgkit_image *image;
	struct imgkit_extent x;

	(void)state;
	make_source("sparse", "hello");
	image = open_image("sparse", IMGKIT_RDWR);
	ok(imgkit_pwrite(image, zeros, sizeof(zeros), 0, &err), &err);
	ok(imgkit_sparsify(image, 0, &result, sizeof(result), NULL, &err), &err);
	assert_true(result.scanned == 2 * 65536 && result.freed == 65536 && result.kept == 0);
	ok(imgkit_map(image, 0, SIZE, &x, &err), &err);
	assert_true(x.kind == IMGKIT_ZERO && x.host == IMGKIT_NO_HOST);
	imgkit_close(image);
	image = open_image("sparse", 0);
	assert_int_equal(imgkit_sparsify(image, 1, &result, sizeof(result), NULL, &err), -EROFS);
	imgkit_close(image);
}

static void test_measure(void **state)
{
	struct imgkit_measure_result m;
	struct imgkit_image *image;

	(void)state;
	make_source("measured", "hello");
	image = open_image("measured", 0);
	ok(imgkit_measure(image, 0, "raw", NULL, &m, sizeof(m), NULL, &err), &err);
	assert_true(m.required == SIZE && m.fully_allocated == SIZE);
	ok(imgkit_measure(image, 0, "qcow2", "cluster_size=64k", &m, sizeof(m), NULL, &err), &err);
	assert_true(m.required >= 5 * 65536 && m.required < SIZE && m.fully_allocated > SIZE);
	imgkit_close(image);
	ok(imgkit_measure(NULL, SIZE, "qcow2", NULL, &m, sizeof(m), NULL, &err), &err);
	assert_true(m.required < 6 * 65536 && m.fully_allocated > SIZE);
	assert_int_equal(imgkit_measure(NULL, SIZE, "none", NULL, &m, sizeof(m), NULL, &err),
			 -EINVAL);
	assert_int_equal(imgkit_measure(NULL, SIZE, "qcow2", "x=1", &m, sizeof(m), NULL, &err),
			 -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_convert),
		cmocka_unit_test(test_convert_in_place),
		cmocka_unit_test(test_convert_snapshot),
		cmocka_unit_test(test_convert_cancelled),
		cmocka_unit_test(test_convert_errors),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_compact),
		cmocka_unit_test(test_dedup),
		cmocka_unit_test(test_sparsify),
		cmocka_unit_test(test_measure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
